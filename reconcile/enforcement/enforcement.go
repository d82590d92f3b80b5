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
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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
	// Reason says why they are not known to be enforced; empty where they are.
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
	// Probe is the version of the probe.
	Probe int `json:"probe"`

	image bool // the reason is the image that the probe runs
}

// Remedy says what to do about a verdict that is inconclusive.
func (r Result) Remedy() string {
	if r.image {
		return "The probe runs the image of the egress gateway: make gateway-image builds it, egress.image names another. Have nodes get it, and try again."
	}
	return "Remove the reason, and try again."
}

const (
	// Version changes when a verdict means something else.
	Version = 1
	// validity is how long a verdict holds: network plugins are not changed
	// every day.
	validity = 24 * time.Hour
	// timeout bounds a probe as a whole, most of which is pulling an image.
	timeout = 90 * time.Second
	// cleanUpTimeout bounds what removes it.
	cleanUpTimeout = 30 * time.Second
	// abandoned is how old the objects of a probe are that has ended for sure.
	abandoned = 2 * (timeout + cleanUpTimeout)
)

// Current tells whether the verdict still holds. Only the good one is kept:
// where policies are not enforced, or that is not known, it may have been
// repaired meanwhile.
func (r Result) Current(now time.Time) bool {
	return r.Probe == Version && r.Verdict == Enforced && now.Sub(r.At) < validity && !now.Before(r.At)
}

// Probe probes in the fleet's namespace, which must exist. It always comes to a
// verdict; an error is only that something was left behind, or ctx has ended. What
// an earlier probe left that was killed is removed as well.
func Probe(ctx context.Context, client dynamic.Interface, fleet *fleetschema.Fleet, now func() time.Time) (result Result, err error) {
	p := prober{client: client, namespace: fleet.Namespace}
	probe := render.NewProbe(fleet, fmt.Sprintf("%x", now().UnixNano()))
	defer func() {
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
		defer cancel()
		err = errors.Join(err, p.cleanUp(cleanup, probe.Selector))
	}()
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	result = p.run(bounded, probe)
	if ctx.Err() != nil {
		return Result{}, ctx.Err()
	}
	result.At, result.Probe = now().UTC().Truncate(time.Second), Version
	return result, nil
}

// prober is one probe under way.
type prober struct {
	client    dynamic.Interface
	namespace string
	made      bool // there may be something to remove
}

var (
	pods     = corev1.SchemeGroupVersion.WithResource("pods")
	policies = networkingv1.SchemeGroupVersion.WithResource("networkpolicies")
)

// imageError is why the image that the probe runs is of no use.
type imageError string

func (e imageError) Error() string { return string(e) }

func inconclusive(what string, err error) Result {
	_, image := errors.AsType[imageError](err)
	return Result{Verdict: Inconclusive, Reason: what + ": " + err.Error(), image: image}
}

func (p *prober) run(ctx context.Context, probe render.Probe) Result {
	policy, err := p.create(ctx, policies, "NetworkPolicy", networkingv1.SchemeGroupVersion, probe.Policy)
	if err != nil {
		return inconclusive("the probe's policy cannot be made", err)
	}
	// What a probe left that was killed; it is the server's clock that tells how old
	// that is. Where it cannot be removed now, the next probe tries again.
	_ = p.remove(ctx, render.ComponentLabel+"="+render.ProbeComponent, policy.GetCreationTimestamp().Add(-abandoned))
	target, err := p.startAndWait(ctx, probe.Target, func(pod *corev1.Pod) (bool, error) {
		if ended(pod) {
			return false, tooEarly(pod)
		}
		return pod.Status.PodIP != "" && len(pod.Status.ContainerStatuses) > 0 && pod.Status.ContainerStatuses[0].State.Running != nil, nil
	})
	if err != nil {
		return inconclusive("the probe's target does not run", err)
	}
	tester, err := p.startAndWait(ctx, probe.Tester(target.Status.PodIP), func(pod *corev1.Pod) (bool, error) { return ended(pod), nil })
	if err != nil {
		return inconclusive("the probe's tester does not run", err)
	}
	return judge(tester)
}

// judge makes a verdict of how the tester ended.
func judge(tester *corev1.Pod) Result {
	window, code, message, ok := sandbox.GateWord(tester.Status.ContainerStatuses)
	switch {
	case !ok:
		return inconclusive("the probe's tester left no word", tooEarly(tester))
	case code == "":
		return Result{Verdict: Enforced, WindowMs: window.Milliseconds()}
	case code == failure.NetworkIsolationUnsupported:
		return Result{Verdict: NotEnforced, Reason: message}
	}
	return Result{Verdict: Inconclusive, Reason: message}
}

// ended tells whether the pod's one container, which is started once, has ended.
// The pod's phase says so a moment later.
func ended(pod *corev1.Pod) bool {
	statuses := pod.Status.ContainerStatuses
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed || len(statuses) > 0 && statuses[0].State.Terminated != nil
}

// tooEarly is why a pod has ended without having done its work: by itself, or as
// its node ended it.
func tooEarly(pod *corev1.Pod) error {
	if pod.Status.Reason != "" {
		return fmt.Errorf("it has ended: %s", pod.Status.Reason)
	}
	return imageError("it ended too early")
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
	p.made = p.made || !refused(err)
	if err != nil {
		return nil, failure.From(err, failure.Object{Kind: kind, Namespace: p.namespace, Name: wanted.GetGenerateName() + "…"})
	}
	return created, nil
}

// refused tells whether the server has said that it does not do it. Any other error
// may be that of an answer that was lost.
func refused(err error) bool {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	return ok && status.ErrStatus.Code/100 == 4
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
			return nil, fmt.Errorf("%s, still after %s", reason, timeout)
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
		switch statuses := pod.Status.ContainerStatuses; {
		case code == "" || code == failure.InsufficientResources || ended(&pod):
		case len(statuses) > 0 && statuses[0].State.Waiting != nil: // its one container cannot be started
			return nil, imageError(why)
		default:
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

// cleanUp removes what the probe made. It goes by labels: an answer that told a
// name may have been lost.
func (p *prober) cleanUp(ctx context.Context, selector string) error {
	if !p.made {
		return nil
	}
	if err := p.remove(ctx, selector, time.Time{}); err != nil {
		return fmt.Errorf("removing the probe: %w", err)
	}
	return nil
}

// remove deletes the pods and policies that are selected: all of them, or where
// before is not zero those that were made before it.
func (p *prober) remove(ctx context.Context, selector string, before time.Time) error {
	var errs []error
	for _, resource := range []schema.GroupVersionResource{pods, policies} {
		client := p.client.Resource(resource).Namespace(p.namespace)
		list, err := client.List(ctx, metav1.ListOptions{LabelSelector: selector})
		if err != nil {
			errs = append(errs, failure.From(err, failure.Object{Kind: resource.Resource, Namespace: p.namespace}))
			continue
		}
		for _, object := range list.Items {
			if !before.IsZero() && !object.GetCreationTimestamp().Time.Before(before) {
				continue
			}
			err := client.Delete(ctx, object.GetName(), metav1.DeleteOptions{})
			if err != nil && !apierrors.IsNotFound(err) {
				errs = append(errs, failure.From(err, failure.Object{Kind: object.GetKind(), Namespace: p.namespace, Name: object.GetName()}))
			}
		}
	}
	return errors.Join(errs...)
}
