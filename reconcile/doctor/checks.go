package doctor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/reconcile/enforcement"
	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// clock looks whether what the program writes as times, and compares with those
// of the server, means the same to both.
func (p Patient) clock(context.Context) ([]Finding, error) {
	const most = 10 * time.Second // a lock counts as left after 30
	if p.ClockSkew.Abs() < most {
		return good("clock", "the clock agrees with the server's"), nil
	}
	where := "ahead of"
	if p.ClockSkew < 0 {
		where = "behind"
	}
	return bad(Warning, "clock", "Have NTP set it (timedatectl shows whether it does): locks, claims and the age of warm pods are judged by it.",
		"the clock of this machine is %s %s the server's", p.ClockSkew.Abs(), where), nil
}

// namespace looks whether Pod Security admission really refuses what the file's
// profile forbids: by a dry run of a pod that no profile but privileged admits.
func (p Patient) namespace(ctx context.Context) ([]Finding, error) {
	_, err := p.resource("", "v1", "namespaces", "").Get(ctx, p.Fleet.Namespace, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return good("namespace", "namespace %s does not exist yet: apply makes it", p.Fleet.Namespace), nil
	case refused(err):
		return bad(Unknown, "namespace", "Have an administrator grant it: get namespaces.", "namespace %s may not be read", p.Fleet.Namespace), nil
	case err != nil:
		return nil, failure.From(err, failure.Object{Kind: "namespace", Name: p.Fleet.Namespace})
	}
	found := good("namespace", "namespace %s exists", p.Fleet.Namespace)
	if p.Fleet.PodSecurity == schema.Privileged {
		return append(found, good("pod-security", "the file asks for the profile privileged, which forbids nothing")...), nil
	}
	privileged := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"generateName": "sandboxctl-doctor-"},
		"spec": map[string]any{"hostNetwork": true, "containers": []any{map[string]any{
			"name": "c", "image": "none.invalid/none:1", "securityContext": map[string]any{"privileged": true},
		}}},
	}}
	_, err = p.resource("", "v1", "pods", p.Fleet.Namespace).Create(ctx, privileged, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	switch {
	case err == nil:
		return append(found, bad(Error, "pod-security", "Apply sets the namespace's labels, where the namespace is the fleet's. Else: kubectl label namespace "+
			p.Fleet.Namespace+" pod-security.kubernetes.io/enforce="+string(p.Fleet.PodSecurity),
			"a privileged pod would be admitted to namespace %s, whose profile is to be %s", p.Fleet.Namespace, p.Fleet.PodSecurity)...), nil
	case strings.Contains(err.Error(), "violates PodSecurity"):
		return append(found, good("pod-security", "Pod Security admission refuses a privileged pod in namespace %s", p.Fleet.Namespace)...), nil
	case refused(err) && !strings.Contains(err.Error(), "cannot create"):
		return append(found, good("pod-security", "a privileged pod is refused in namespace %s: %s", p.Fleet.Namespace, failure.From(err, failure.Object{}))...), nil
	}
	return append(found, bad(Unknown, "pod-security", "Remove the reason, and try again.", "it cannot be told what is admitted: %v", failure.From(err, failure.Object{Kind: "pod", Namespace: p.Fleet.Namespace}))...), nil
}

// runtimeClasses looks for each class that the file names.
func (p Patient) runtimeClasses(ctx context.Context) ([]Finding, error) {
	wanted := map[string]bool{}
	for _, s := range p.settings() {
		if s.RuntimeClass != "" {
			wanted[s.RuntimeClass] = true
		}
	}
	return p.classes(ctx, "runtime-class", "node.k8s.io", "runtimeclasses", wanted,
		"Install the runtime on the nodes and make the class, or leave runtimeClass out.")
}

// settings are those of all that is made: of sandboxes, and of pools' pods.
func (p Patient) settings() []schema.Settings {
	var all []schema.Settings
	for _, s := range p.Fleet.Sandboxes {
		all = append(all, s.Settings)
	}
	for _, pool := range p.Fleet.Pools {
		if t, ok := p.Fleet.Template(pool.Template); ok {
			all = append(all, t.Settings)
		}
	}
	return all
}

// classes looks for objects outside of namespaces by their names.
func (p Patient) classes(ctx context.Context, check, group, resource string, wanted map[string]bool, remedy string) ([]Finding, error) {
	var found []Finding
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		_, err := p.resource(group, "v1", resource, "").Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			found = append(found, bad(Error, check, remedy, "there is no class %s", name)...)
		case refused(err):
			found = append(found, bad(Unknown, check, "Have an administrator look: kubectl get "+resource, "no permission to see class %s", name)...)
		case err != nil:
			return nil, failure.From(err, failure.Object{Kind: resource, Name: name})
		default:
			found = append(found, good(check, "class %s is there", name)...)
		}
	}
	return found, nil
}

// storageClasses looks for each class that the file names, and for a default
// where it names none.
func (p Patient) storageClasses(ctx context.Context) ([]Finding, error) {
	wanted, byDefault := map[string]bool{}, false
	for _, s := range p.settings() {
		switch {
		case s.Workspace.Size.IsZero():
		case s.Workspace.StorageClass != "":
			wanted[s.Workspace.StorageClass] = true
		default:
			byDefault = true
		}
	}
	const check = "storage-class"
	found, err := p.classes(ctx, check, "storage.k8s.io", "storageclasses", wanted, "Name another: kubectl get storageclasses shows them. Or use workspace: {emptyDir: …}.")
	if err != nil || !byDefault {
		return found, err
	}
	list, err := p.resource("storage.k8s.io", "v1", "storageclasses", "").List(ctx, metav1.ListOptions{})
	if refused(err) {
		return append(found, bad(Unknown, check, "Have an administrator look: kubectl get storageclasses", "no permission to see whether there is a default class")...), nil
	}
	if err != nil {
		return nil, failure.From(err, failure.Object{Kind: "storageclasses"})
	}
	for _, class := range list.Items {
		if class.GetAnnotations()["storageclass.kubernetes.io/is-default-class"] == "true" {
			return append(found, good(check, "the default class is %s", class.GetName())...), nil
		}
	}
	return append(found, bad(Error, check, "Name one in workspace.storageClass, or use workspace: {emptyDir: …}.", "there is no default class, and a workspace names none")...), nil
}

// egress probes whether policies are enforced.
func (p Patient) egress(ctx context.Context) ([]Finding, error) {
	const check = "egress"
	if _, err := p.resource("", "v1", "namespaces", "").Get(ctx, p.Fleet.Namespace, metav1.GetOptions{}); apierrors.IsNotFound(err) {
		return bad(Unknown, check, "Apply finds out by itself, before it makes a pod. Or make the namespace, and try again.",
			"whether NetworkPolicy is enforced cannot be probed while namespace %s does not exist", p.Fleet.Namespace), nil
	}
	result, err := p.Probe(ctx)
	if code := failure.CodeOf(err); code == failure.PermissionDenied || code == failure.NamespaceAccessDenied {
		return bad(Unknown, check, "Have an administrator grant what is missing, and try again.", "whether NetworkPolicy is enforced cannot be probed: %v", err), nil
	}
	if err != nil {
		return nil, err
	}
	var found []Finding
	switch result.Verdict {
	case enforcement.Enforced:
		found = good(check, "NetworkPolicy is enforced; a new pod was open for %d ms", result.WindowMs)
		if result.WindowMs > 0 && !render.HasGate(p.Fleet) {
			found = bad(Warning, check, "A gate waits for that to be over before anything of a sandbox runs: fleets have one, unless their file says unenforced: allow or mode: cilium.",
				"NetworkPolicy is enforced, but a new pod was open for %d ms", result.WindowMs)
		}
	case enforcement.NotEnforced:
		level := Error
		if p.Fleet.Egress.Unenforced == schema.Allow {
			level = Warning // the file accepts it
		}
		found = bad(level, check, "Use a network plugin that enforces it, such as Calico or Cilium. Until then apply refuses, unless the file says egress: {unenforced: allow}.",
			"the cluster does not enforce NetworkPolicy: sandboxes reach everything")
	default:
		found = bad(Unknown, check, result.Remedy(), "it cannot be told whether NetworkPolicy is enforced: %s", result.Reason)
	}
	found[0].Enforcement = &result
	return found, nil
}

func hasGateway(objects []render.Object) bool {
	return slices.ContainsFunc(objects, func(o render.Object) bool { return o.Object.GetKind() == "Deployment" })
}

// gateway looks whether the fleet's gateway serves.
func (p Patient) gateway(ctx context.Context) ([]Finding, error) {
	if !hasGateway(p.Objects) {
		return nil, nil
	}
	const check = "gateway"
	name := render.GatewayService(p.Fleet)
	deployment, err := p.resource("apps", "v1", "deployments", p.Fleet.Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return good(check, "the egress gateway is not there yet: apply makes it"), nil
	}
	if refused(err) {
		return bad(Unknown, check, "Have an administrator grant it: get deployments.", "the egress gateway may not be looked at"), nil
	}
	if err != nil {
		return nil, failure.From(err, failure.Object{Kind: "deployment", Namespace: p.Fleet.Namespace, Name: name})
	}
	wanted, _, _ := unstructured.NestedInt64(deployment.Object, "spec", "replicas")
	ready, _, _ := unstructured.NestedInt64(deployment.Object, "status", "readyReplicas")
	switch {
	case ready == 0:
		return bad(Error, check, fmt.Sprintf("See why: kubectl --namespace %s describe pods --selector %s=%s", p.Fleet.Namespace, render.ComponentLabel, render.GatewayComponent),
			"no egress gateway is ready: sandboxes reach no host by name, and new ones do not start"), nil
	case ready < wanted:
		return bad(Warning, check, fmt.Sprintf("See why: kubectl --namespace %s describe pods --selector %s=%s", p.Fleet.Namespace, render.ComponentLabel, render.GatewayComponent),
			"%d of %d egress gateways are ready", ready, wanted), nil
	}
	return good(check, "%d egress gateways are ready", ready), nil
}

// images looks whether the images have what sessions need.
func (p Patient) images(ctx context.Context) ([]Finding, error) {
	needed := map[string]bool{}
	for _, s := range p.Fleet.Sandboxes {
		needed[s.Image] = needed[s.Image] || len(s.Sessions) > 0
	}
	tools, err := p.Tools(ctx)
	if err != nil {
		return nil, err
	}
	var found []Finding
	for _, image := range slices.Sorted(maps.Keys(needed)) {
		tool, running := tools[image]
		level := Warning
		if needed[image] {
			level = Error
		}
		switch {
		case !running:
			found = append(found, bad(Unknown, "image", "It is looked at once a sandbox of it runs.", "no sandbox of image %s runs, so it is not known whether it has tmux", image)...)
		case tool.Err != nil:
			found = append(found, bad(level, "image", "Install tmux in the image: sessions need it.", "image %s has no usable tmux: %v", image, tool.Err)...)
		default:
			found = append(found, good("image", "image %s has %s", image, tool.Version)...)
		}
	}
	return found, nil
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
