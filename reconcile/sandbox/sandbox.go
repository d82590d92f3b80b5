// Package sandbox works in the sandboxes of a fleet: it finds their pods, runs
// commands in them, copies files, follows logs and reads what they use. What
// comes out of a sandbox is a stranger's: the package never trusts a name or an
// archive from there, and never prints.
package sandbox

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

// Client works in the sandboxes of one fleet on one cluster.
type Client struct {
	fleet      *schema.Fleet
	config     *rest.Config
	core       *rest.RESTClient // of the core API
	parameters runtime.ParameterCodec
	// now is nil where it is not noted that sandboxes are used.
	now func() time.Time
}

// New returns a client for the fleet on the cluster of that configuration.
func New(config *rest.Config, fleet *schema.Fleet) (*Client, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	config = rest.CopyConfig(config)
	config.APIPath, config.GroupVersion = "/api", &corev1.SchemeGroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	core, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("setting up the client: %w", err)
	}
	return &Client{fleet: fleet, config: config, core: core, parameters: runtime.NewParameterCodec(scheme)}, nil
}

// Pods returns the pods of all sandboxes in the fleet's namespace, other
// fleets' too; see Of.
func (c *Client) Pods(ctx context.Context) ([]corev1.Pod, error) {
	return c.pods(ctx, render.SandboxLabel+"=true")
}

func (c *Client) pods(ctx context.Context, selector string) ([]corev1.Pod, error) {
	var list corev1.PodList
	err := c.core.Get().Namespace(c.fleet.Namespace).Resource("pods").
		VersionedParams(&metav1.ListOptions{LabelSelector: selector}, c.parameters).Do(ctx).Into(&list)
	return list.Items, failure.From(err, failure.Object{Kind: "pods", Namespace: c.fleet.Namespace})
}

// Of returns the pods that are the fleet's, by the names of their sandboxes.
// The first of each is the one that counts; others are on their way out.
func Of(fleet *schema.Fleet, pods []corev1.Pod) map[string][]corev1.Pod {
	mine := map[string][]corev1.Pod{}
	for _, pod := range pods {
		name := pod.Labels[render.SandboxIDLabel]
		if name != "" && pod.Labels[render.PartOfLabel] == render.ApplySetID(fleet) { // a warm pod is no sandbox yet
			mine[name] = append(mine[name], pod)
		}
	}
	for _, pods := range mine {
		slices.SortStableFunc(pods, func(a, b corev1.Pod) int {
			if going := a.DeletionTimestamp != nil; going != (b.DeletionTimestamp != nil) {
				if going {
					return 1
				}
				return -1
			}
			return b.CreationTimestamp.Compare(a.CreationTimestamp.Time)
		})
	}
	return mine
}

// Find returns the pod of a sandbox, in whatever state it is. Its error is
// PodNotFound where there is none.
func (c *Client) Find(ctx context.Context, name string) (*corev1.Pod, error) {
	fleet := render.PartOfLabel + "=" + render.ApplySetID(c.fleet) + "," + render.SandboxLabel + "=true"
	selectors := []string{fleet} // for the names of those that there are
	if len(validation.IsValidLabelValue(name)) == 0 {
		selectors = []string{fleet + "," + render.SandboxIDLabel + "=" + name, fleet}
	}
	var mine map[string][]corev1.Pod
	for _, selector := range selectors {
		pods, err := c.pods(ctx, selector)
		if err != nil {
			return nil, err
		}
		mine = Of(c.fleet, pods)
		if found := mine[name]; len(found) > 0 {
			return &found[0], nil
		}
	}
	if declared, ok := c.fleet.Sandbox(name); ok && declared.Idle.After.Duration > 0 {
		record, stopped, err := c.Stopped(ctx, name)
		if err != nil {
			return nil, err
		}
		if stopped {
			return nil, failure.New(failure.PodNotFound, failure.Object{Kind: "pod", Namespace: c.fleet.Namespace},
				"sandbox %s is stopped: idle since %s", name, record.Since.UTC().Format(time.RFC3339)).
				With("sandbox", name).With("namespace", c.fleet.Namespace).
				WithHint("Its workspace is kept. To start it: sandboxctl apply --start %s", name)
		}
	}
	return nil, c.notFound(name, mine)
}

// FindRunning returns the pod of a sandbox in which commands can be run. Its
// errors are PodNotFound and PodNotRunning.
func (c *Client) FindRunning(ctx context.Context, name string) (*corev1.Pod, error) {
	pod, err := c.Find(ctx, name)
	if err != nil {
		return nil, err
	}
	if Runs(pod) {
		return pod, nil
	}
	reason, _ := NotReady(pod)
	if reason == "" {
		reason = "its container does not run"
	}
	return nil, failure.New(failure.PodNotRunning, about(pod), "sandbox %s is not running: %s", name, reason).
		With("podName", pod.Name).With("currentPhase", pod.Status.Phase)
}

// Runs tells whether commands can be run in the pod.
func Runs(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.ContainerStatuses, func(status corev1.ContainerStatus) bool {
		return status.Name == render.ContainerName && status.State.Running != nil
	})
}

// notFound says why a sandbox has no pod, and which sandboxes there are.
func (c *Client) notFound(name string, mine map[string][]corev1.Pod) error {
	object := failure.Object{Kind: "pod", Namespace: c.fleet.Namespace}
	fail := func(format string, args ...any) *failure.Error {
		return failure.New(failure.PodNotFound, object, format, args...).With("sandbox", name).With("namespace", object.Namespace)
	}
	declared, ok := c.fleet.Sandbox(name)
	switch {
	case ok && declared.State == schema.Stopped:
		return fail("sandbox %s is stopped", name).WithHint("To start it, say state: running in the file, and apply.")
	case ok:
		return fail("sandbox %s has no pod in namespace %s", name, object.Namespace).WithHint("The file declares it: sandboxctl apply starts it.")
	}
	names := make(map[string]bool)
	for _, sandbox := range c.fleet.Sandboxes {
		names[sandbox.Name] = true
	}
	for name := range mine {
		names[name] = true
	}
	known := sortedKeys(names)
	if len(known) == 0 {
		return fail("fleet %s has no sandbox %s; it has none at all", c.fleet.Name, diagnostic.Quote(name))
	}
	hint := diagnostic.DidYouMean(name, known) + " It has: " + shortList(known)
	return fail("fleet %s has no sandbox %s", c.fleet.Name, diagnostic.Quote(name)).WithHint("%s", strings.TrimSpace(hint))
}

// shortList names the first of many.
func shortList(names []string) string {
	const most = 10
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

func sortedKeys(set map[string]bool) []string {
	var keys []string
	for key := range set {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

func about(pod *corev1.Pod) failure.Object {
	return failure.Object{Kind: "pod", Namespace: pod.Namespace, Name: pod.Name}
}

// Observation is what the cluster shows of the fleet's sandboxes.
type Observation struct {
	NamespaceExists bool
	// Applied tells whether the fleet was ever applied, and not destroyed since.
	Applied bool
	// Pods are those of all sandboxes in the namespace, other fleets' too.
	Pods []corev1.Pod
	// Stopped are the records of the sandboxes that were stopped as they were
	// idle; they are read for fleets in which that can be.
	Stopped map[string]render.IdleRecord
}

// Observe reads what there is, by three requests at once, or four.
func (c *Client) Observe(ctx context.Context) (Observation, error) {
	var seen Observation
	namespace, parent := c.fleet.Namespace, render.ParentName(c.fleet)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		seen.NamespaceExists, err = exists(c.core.Get().Resource("namespaces").Name(namespace).Do(ctx).Error())
		return failure.From(err, failure.Object{Kind: "namespace", Name: namespace})
	})
	group.Go(func() (err error) {
		seen.Applied, err = exists(c.core.Get().Namespace(namespace).Resource("configmaps").Name(parent).Do(ctx).Error())
		return failure.From(err, failure.Object{Kind: "configmap", Namespace: namespace, Name: parent})
	})
	group.Go(func() (err error) {
		seen.Pods, err = c.Pods(ctx)
		return err
	})
	if slices.ContainsFunc(c.fleet.Sandboxes, func(s schema.Sandbox) bool { return s.Idle.After.Duration > 0 }) {
		group.Go(func() (err error) {
			seen.Stopped, err = c.stopped(ctx)
			return err
		})
	}
	return seen, group.Wait()
}

// exists makes an answer of the error of a GET.
func exists(err error) (bool, error) {
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}
