// Package enforcement finds out whether a cluster enforces NetworkPolicy. The
// API accepts policies on any cluster, and on one whose network plugin ignores
// them, nothing tells; so this makes two pods and a policy for some seconds, and
// has one of them try what the policy forbids. The package never prints, and
// leaves nothing behind.
package enforcement

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/sandbox"
	"github.com/agentpane/sandboxctl/render"
	fleetschema "github.com/agentpane/sandboxctl/schema"
)

// Verdict is whether policies are enforced.
type Verdict string

// The verdicts. Inconclusive is everything that is neither: as long as it is not
// known that policies are enforced, they are not to be relied on.
const (
	Enforced     Verdict = "enforced"
	NotEnforced  Verdict = "not enforced"
	Inconclusive Verdict = "inconclusive"
)

// Result is what a probe came to.
type Result struct {
	Verdict Verdict `json:"verdict"`
	// WindowMs is for how many milliseconds a new pod could reach what it must
	// not, from the first instruction of its first container on.
	WindowMs int64 `json:"windowMs"`
	// Reason says why a verdict is inconclusive.
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"`
	// Probe is the version of the probe.
	Probe int `json:"probe"`
}

const (
	// Version changes when a verdict means something else.
	Version = 1
	// validity is how long a verdict holds: network plugins are not changed
	// every day.
	validity = 24 * time.Hour
	// timeout bounds a probe as a whole, most of which is pulling an image.
	timeout = 90 * time.Second
)

// Current tells whether the verdict still holds. Only the good one is kept:
// where policies are not enforced, or that is not known, it may have been
// repaired meanwhile.
func (r Result) Current(now time.Time) bool {
	return r.Probe == Version && r.Verdict == Enforced && now.Sub(r.At) < validity && !now.Before(r.At)
}

// Probe probes in the fleet's namespace, which must exist. It always comes to a
// verdict; an error is only that something was left behind, or ctx has ended.
func Probe(ctx context.Context, client dynamic.Interface, fleet *fleetschema.Fleet, now func() time.Time) (result Result, err error) {
	p := prober{client: client, namespace: fleet.Namespace}
	defer func() {
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		err = errors.Join(err, p.cleanUp(cleanup))
	}()
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	id := fmt.Sprintf("%x", now().UnixNano())
	window, verdict, reason := p.run(bounded, render.NewProbe(fleet, id))
	if ctx.Err() != nil {
		return Result{}, ctx.Err()
	}
	return Result{Verdict: verdict, WindowMs: window.Milliseconds(), Reason: reason, At: now().UTC().Truncate(time.Second), Probe: Version}, nil
}

// prober is one probe under way.
type prober struct {
	client    dynamic.Interface
	namespace string
	made      []made
}

type made struct {
	resource schema.GroupVersionResource
	name     string
}

var (
	errEnded = errors.New("it ended too early")
	pods     = corev1.SchemeGroupVersion.WithResource("pods")
	policies = networkingv1.SchemeGroupVersion.WithResource("networkpolicies")
)

func (p *prober) run(ctx context.Context, probe render.Probe) (window time.Duration, verdict Verdict, reason string) {
	if _, err := p.create(ctx, policies, "NetworkPolicy", networkingv1.SchemeGroupVersion, probe.Policy); err != nil {
		return 0, Inconclusive, "the probe's policy cannot be made: " + err.Error()
	}
	target, err := p.startAndWait(ctx, probe.Target, func(pod *corev1.Pod) (bool, error) {
		if ended(pod) {
			return false, errEnded
		}
		return pod.Status.PodIP != "" && len(pod.Status.ContainerStatuses) > 0 && pod.Status.ContainerStatuses[0].State.Running != nil, nil
	})
	if err != nil {
		return 0, Inconclusive, "the probe's target does not run: " + err.Error()
	}
	tester, err := p.startAndWait(ctx, probe.Tester(target.Status.PodIP), func(pod *corev1.Pod) (bool, error) { return ended(pod), nil })
	if err != nil {
		return 0, Inconclusive, "the probe's tester does not run: " + err.Error()
	}
	return judge(tester)
}

// judge makes a verdict of how the tester ended.
func judge(tester *corev1.Pod) (window time.Duration, verdict Verdict, reason string) {
	window, code, message, ok := sandbox.GateWord(tester.Status.ContainerStatuses)
	switch {
	case !ok:
		return 0, Inconclusive, "the probe's tester left no word of how it ended"
	case code == "":
		return window, Enforced, ""
	case code == failure.NetworkIsolationUnsupported:
		return 0, NotEnforced, message
	}
	return 0, Inconclusive, message
}

// ended tells whether the pod's one container, which is started once, has ended.
// The pod's phase says so a moment later.
func ended(pod *corev1.Pod) bool {
	statuses := pod.Status.ContainerStatuses
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed || len(statuses) > 0 && statuses[0].State.Terminated != nil
}

// create makes an object whose name the server generates.
func (p *prober) create(ctx context.Context, resource schema.GroupVersionResource, kind string, version schema.GroupVersion, object any) (*unstructured.Unstructured, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		return nil, err
	}
	wanted := &unstructured.Unstructured{Object: content}
	wanted.SetGroupVersionKind(version.WithKind(kind))
	unstructured.RemoveNestedField(wanted.Object, "status")
	created, err := p.client.Resource(resource).Namespace(p.namespace).Create(ctx, wanted, metav1.CreateOptions{})
	if err != nil {
		return nil, failure.From(err, failure.Object{Kind: kind, Namespace: p.namespace, Name: wanted.GetGenerateName() + "…"})
	}
	p.made = append(p.made, made{resource, created.GetName()})
	return created, nil
}

// startAndWait starts a pod and waits, by watch, until done says so; a pod that
// cannot start is an error.
func (p *prober) startAndWait(ctx context.Context, wanted *corev1.Pod, done func(*corev1.Pod) (bool, error)) (*corev1.Pod, error) {
	created, err := p.create(ctx, pods, "Pod", corev1.SchemeGroupVersion, wanted)
	if err != nil {
		return nil, err
	}
	reason := "no node has taken it up"
	for {
		finished, err := p.follow(ctx, created, done, &reason)
		if finished != nil || err != nil {
			return finished, err
		}
		select { // the watch broke off: only another look tells
		case <-ctx.Done():
			return nil, fmt.Errorf("%s after %s: %w", reason, timeout, ctx.Err())
		case <-time.After(watchPause):
		}
		if created, err = p.client.Resource(pods).Namespace(p.namespace).Get(ctx, created.GetName(), metav1.GetOptions{}); err != nil {
			return nil, failure.From(err, failure.Object{Kind: "pod", Namespace: p.namespace})
		}
	}
}

// watchPause is the least time between two watches.
const watchPause = 500 * time.Millisecond

// follow watches a pod from how it was seen on; the pod is nil where the watch
// ended before done said so.
func (p *prober) follow(ctx context.Context, seen *unstructured.Unstructured, done func(*corev1.Pod) (bool, error), reason *string) (*corev1.Pod, error) {
	judge := func(object *unstructured.Unstructured) (*corev1.Pod, error) {
		var pod corev1.Pod
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &pod); err != nil {
			return nil, err
		}
		if finished, err := done(&pod); finished || err != nil {
			return &pod, err
		}
		why, code := sandbox.NotReady(&pod)
		if code != "" && code != failure.InsufficientResources && !ended(&pod) {
			return nil, errors.New(why)
		}
		if why != "" {
			*reason = why
		}
		return nil, nil
	}
	if pod, err := judge(seen); pod != nil || err != nil {
		return pod, err
	}
	watch, err := p.client.Resource(pods).Namespace(p.namespace).Watch(ctx, metav1.ListOptions{
		FieldSelector: "metadata.name=" + seen.GetName(), ResourceVersion: seen.GetResourceVersion(),
	})
	if err != nil {
		return nil, nil // as one that broke off
	}
	defer watch.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, nil
		case event := <-watch.ResultChan():
			object, ok := event.Object.(*unstructured.Unstructured)
			if !ok || object.GetKind() != "Pod" {
				return nil, nil
			}
			if pod, err := judge(object); pod != nil || err != nil {
				return pod, err
			}
		}
	}
}

// cleanUp deletes what the probe made.
func (p *prober) cleanUp(ctx context.Context) error {
	var errs []error
	for _, m := range p.made {
		err := p.client.Resource(m.resource).Namespace(p.namespace).Delete(ctx, m.name, metav1.DeleteOptions{})
		if err = failure.From(err, failure.Object{Kind: m.resource.Resource, Namespace: p.namespace, Name: m.name}); err != nil && failure.CodeOf(err) != failure.PodNotFound {
			errs = append(errs, fmt.Errorf("removing the probe: %w", err))
		}
	}
	return errors.Join(errs...)
}
