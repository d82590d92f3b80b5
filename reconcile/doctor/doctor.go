// Package doctor finds what would go wrong with a fleet on a cluster before it
// does: missing rights, Pod Security admission, classes and quotas, NetworkPolicy
// that is not enforced. Findings are values, and each that is not good says what
// to do. The package never prints, and what it makes for a probe it removes.
package doctor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	k8sschema "k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/agentpane/sandboxctl/reconcile/enforcement"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// Level says how bad a finding is.
type Level string

// The levels. Unknown is what could not be found out.
const (
	OK      Level = "ok"
	Warning Level = "warning"
	Error   Level = "error"
	Unknown Level = "unknown"
)

// Finding is what a check came to.
type Finding struct {
	// Check is what was looked at: server, clock, permissions, namespace, pod-security,
	// runtime-class, storage-class, quota, egress, gateway, image.
	Check   string `json:"check"`
	Level   Level  `json:"level"`
	Message string `json:"message"`
	// Remedy is what to do about it; empty where all is well.
	Remedy string `json:"remedy,omitempty"`
	// Enforcement is the probe's result, with the check egress.
	Enforcement *enforcement.Result `json:"enforcement,omitempty"`
}

// Patient is what is examined.
type Patient struct {
	Client  dynamic.Interface
	Fleet   *schema.Fleet
	Objects []render.Object
	// Version is the server's, as "v1.37.2".
	Version string
	// ClockSkew is how much the clock of who examines is ahead of the server's.
	ClockSkew time.Duration
	// Probe tells whether the cluster enforces NetworkPolicy.
	Probe func(context.Context) (enforcement.Result, error)
	// Tools tells, by image, what of tmux a running sandbox of that image has:
	// the version; an error for none. Images without a running sandbox are
	// missing.
	Tools func(context.Context) (map[string]Tool, error)
}

// Tool is a program in an image.
type Tool struct {
	Version string
	Err     error
}

// Examine runs all checks, several at once, and returns their findings in a
// fixed order. The error is for a cluster that does not answer.
func Examine(ctx context.Context, p Patient) ([]Finding, error) {
	checks := []func(context.Context) ([]Finding, error){
		p.server, p.clock, p.permissions, p.namespace, p.runtimeClasses, p.storageClasses, p.quota, p.egress, p.gateway, p.images,
	}
	all := make([][]Finding, len(checks))
	group, ctx := errgroup.WithContext(ctx)
	for i, check := range checks {
		group.Go(func() (err error) {
			all[i], err = check(ctx)
			return err
		})
	}
	err := group.Wait()
	return slices.Concat(all...), err
}

func good(check, format string, args ...any) []Finding {
	return []Finding{{Check: check, Level: OK, Message: fmt.Sprintf(format, args...)}}
}

func bad(level Level, check, remedy, format string, args ...any) []Finding {
	return []Finding{{Check: check, Level: level, Message: fmt.Sprintf(format, args...), Remedy: remedy}}
}

// resource is where objects of a kind are.
func (p Patient) resource(group, version, resource, namespace string) dynamic.ResourceInterface {
	client := p.Client.Resource(k8sschema.GroupVersionResource{Group: group, Version: version, Resource: resource})
	if namespace == "" {
		return client
	}
	return client.Namespace(namespace)
}

// refused tells whether an error is a lack of rights, which is a finding of its
// own.
func refused(err error) bool { return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) }

func (p Patient) server(context.Context) ([]Finding, error) {
	var major, minor int
	if _, err := fmt.Sscanf(p.Version, "v%d.%d", &major, &minor); err != nil {
		return bad(Unknown, "server", "Nothing, if it works.", "the server's version, %q, is of a form that is not known", p.Version), nil
	}
	// Server-side apply and Pod Security admission are older; a resize in place
	// is a subresource since 1.33.
	if major == 1 && minor < 33 {
		return bad(Warning, "server", "Upgrade the cluster to 1.33 or later: until then, another amount of CPU or memory replaces a sandbox.",
			"the server is %s, which cannot resize a pod in place", p.Version), nil
	}
	return good("server", "the server is %s", p.Version), nil
}

// right is a right that the file needs.
type right struct {
	group, resource, subresource, verb, namespace string
}

func (r right) String() string {
	text := r.verb + " " + r.resource
	if r.subresource != "" {
		text += "/" + r.subresource
	}
	if r.group != "" {
		text += "." + r.group
	}
	if r.namespace == "" {
		return text + " in the whole cluster"
	}
	return text + " in namespace " + r.namespace
}

// rights are those that applying the fleet, and working in it, needs.
func (p Patient) rights() []right {
	var all []right
	used := map[k8sschema.GroupVersionKind]bool{}
	for _, object := range p.Objects {
		used[object.Object.GroupVersionKind()] = true
	}
	for _, kind := range render.KindsOf(p.Fleet) {
		verbs := []string{"list"}
		if used[kind.Kind] || kind.Kind.Kind == "ConfigMap" { // with the fleet's own record
			verbs = []string{"get", "list", "create", "patch", "delete"}
		}
		namespace := p.Fleet.Namespace
		if !kind.Namespaced {
			namespace = ""
		}
		for _, verb := range verbs {
			all = append(all, right{kind.Resource.Group, kind.Resource.Resource, "", verb, namespace})
		}
	}
	for resource, verb := range map[string]string{"exec": "create", "log": "get", "resize": "patch"} {
		all = append(all, right{"", "pods", resource, verb, p.Fleet.Namespace})
	}
	all = append(all, right{"", "pods", "", "watch", p.Fleet.Namespace}, right{"", "events", "", "list", p.Fleet.Namespace})
	slices.SortFunc(all, func(a, b right) int {
		return slices.Compare([]string{a.resource, a.subresource, a.verb}, []string{b.resource, b.subresource, b.verb})
	})
	return all
}

// permissions asks for each right whether the user has it.
func (p Patient) permissions(ctx context.Context) ([]Finding, error) {
	var mutex sync.Mutex // protects missing
	missing := map[string]bool{}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	rights := p.rights()
	for _, right := range rights {
		group.Go(func() error {
			allowed, err := p.may(ctx, right)
			mutex.Lock()
			defer mutex.Unlock()
			if err == nil && !allowed {
				missing[right.String()] = true
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("asking for permissions: %w", err)
	}
	if len(missing) == 0 {
		return good("permissions", "all %d rights that the file needs are there", len(rights)), nil
	}
	var found []Finding
	for _, what := range slices.Sorted(maps.Keys(missing)) {
		found = append(found, bad(Error, "permissions", "Have an administrator grant it: the Role and ClusterRole that sandboxctl render shows have all rights that are needed.",
			"no permission to %s", what)...)
	}
	return found, nil
}

// may asks the server by a SelfSubjectAccessReview.
func (p Patient) may(ctx context.Context, r right) (bool, error) {
	review := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
		"spec": map[string]any{"resourceAttributes": map[string]any{
			"group": r.group, "resource": r.resource, "subresource": r.subresource, "verb": r.verb, "namespace": r.namespace,
		}},
	}}
	answer, err := p.resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "").Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	allowed, _, err := unstructured.NestedBool(answer.Object, "status", "allowed")
	return allowed, err
}
