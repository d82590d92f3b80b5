package reconcile

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/reconcile/sandbox"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// unschedulableGrace is how long a pod may find no node before that counts as
// a failure: a cluster that scales by itself needs longer, and says so by an
// event, but a person waits for this.
const unschedulableGrace = 30 * time.Second

// WaitReady waits until the pods of the changes are ready, by one watch. A pod
// that cannot become ready is an error at once, with the pod's own reason; the
// others are waited for all the same, at most timeout.
func (r *Reconciler) WaitReady(ctx context.Context, fleet *schema.Fleet, changes []plan.Change, timeout time.Duration, tell func(Event)) (err error) {
	waiting := map[string]plan.Change{}
	var ref plan.Ref
	for _, change := range changes {
		if change.Ref.Kind == "Pod" && change.Action != plan.Delete {
			waiting[change.PodName()], ref = change, change.Ref
		}
	}
	if len(waiting) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errNotReady)
	defer cancel()
	tell, recorded := r.of(fleet).auditedReady(tell)
	defer func() { err = errors.Join(err, recorded()) }()
	w := waiter{
		waiting: waiting, timeout: timeout, reasons: map[string]string{}, tell: tell, now: r.now,
		unschedulable: map[string]time.Time{}, verdicts: map[string]verdict{},
		lastWords: func(pod *corev1.Pod) string { return r.lastWords(ctx, pod) },
	}
	selector := metav1.ListOptions{LabelSelector: render.PartOfLabel + "=" + render.ApplySetID(fleet)}
	for len(w.waiting) > 0 {
		// A connection that breaks looks like a watch that has ended: only the
		// list that follows tells, and a pause keeps it from being a storm.
		pause := time.After(watchPause)
		if err := r.lookAtPods(ctx, ref, selector, &w); err != nil {
			return errors.Join(append(w.failed, err)...)
		}
		if len(w.waiting) > 0 {
			<-pause
		}
	}
	return errors.Join(w.failed...)
}

// checkInterval is how often is looked whether time alone has decided something.
const checkInterval = 500 * time.Millisecond

// watchPause is the least time between two watches.
const watchPause = time.Second

// lookAtPods lists the pods and watches them from there on.
func (r *Reconciler) lookAtPods(ctx context.Context, ref plan.Ref, selector metav1.ListOptions, w *waiter) error {
	list, err := r.resource(ref).List(ctx, selector)
	if err != nil {
		return w.timedOut(ctx, failure.From(err, failure.Object{Kind: "pods", Namespace: ref.Namespace}))
	}
	there := map[string]bool{}
	for i := range list.Items {
		there[list.Items[i].GetName()] = true
		w.see(&list.Items[i])
	}
	for _, name := range slices.Sorted(maps.Keys(w.waiting)) {
		if !there[name] {
			w.fail(w.waiting[name], failure.PodNotRunning, "it was deleted")
		}
	}
	if len(w.waiting) == 0 {
		return nil
	}
	selector.ResourceVersion = list.GetResourceVersion()
	return r.watchPods(ctx, ref, selector, w)
}

var errNotReady = errors.New("the time to wait was over")

// watchPods follows the pods until none is waited for, or the server ends the
// watch, as it does every few minutes.
func (r *Reconciler) watchPods(ctx context.Context, ref plan.Ref, selector metav1.ListOptions, w *waiter) error {
	events, err := r.resource(ref).Watch(ctx, selector)
	if err != nil {
		return w.timedOut(ctx, failure.From(err, failure.Object{Kind: "pods", Namespace: ref.Namespace}))
	}
	defer events.Stop()
	// A pod that stays unschedulable changes nothing that would be an event.
	check := time.NewTicker(checkInterval)
	defer check.Stop()
	for len(w.waiting) > 0 {
		select {
		case <-ctx.Done():
			return w.timedOut(ctx, nil)
		case <-check.C:
			w.judgeStanding()
			w.giveUpUnschedulable()
		case event, open := <-events.ResultChan():
			if !open {
				return nil
			}
			if event.Type == watch.Error {
				err := apierrors.FromObject(event.Object)
				if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
					return nil
				}
				return failure.From(err, failure.Object{Kind: "pods", Namespace: ref.Namespace})
			}
			if object, ok := event.Object.(*unstructured.Unstructured); ok {
				w.see(object)
				if change, ok := w.waiting[object.GetName()]; ok && event.Type == watch.Deleted {
					w.fail(change, failure.PodNotRunning, "it was deleted")
				}
			}
		}
	}
	return nil
}

// waiter knows which pods are waited for and why they are not ready.
type waiter struct {
	waiting       map[string]plan.Change
	timeout       time.Duration // how long they are waited for at most
	reasons       map[string]string
	unschedulable map[string]time.Time
	verdicts      map[string]verdict
	failed        []error
	// lastWords is the last line that a crashed container of the pod printed.
	lastWords func(*corev1.Pod) string
	tell      func(Event)
	now       func() time.Time
}

// see takes note of a pod's state.
func (w *waiter) see(object *unstructured.Unstructured) {
	change, ok := w.waiting[object.GetName()]
	if !ok {
		return
	}
	if change.Labels == nil { // of a pod that does not change, the plan has the name only
		change.Labels = object.GetLabels()
		w.waiting[object.GetName()] = change
	}
	var pod corev1.Pod
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &pod); err != nil {
		w.fail(change, failure.APIError, err.Error())
		return
	}
	reason, code := sandbox.NotReady(&pod)
	if change.Disruption == plan.Restarts && pod.Status.ObservedGeneration != 0 && pod.Status.ObservedGeneration < pod.Generation {
		reason, code = "its node has not seen the change yet", ""
	}
	if !w.stands(change, &pod, reason, code) {
		return
	}
	w.judge(change, &pod, reason, code)
}

// verdict is what a pod's state says for the time being.
type verdict struct {
	since  time.Time
	pod    *corev1.Pod
	reason string
	code   failure.Code
}

// A new pod without a probe is ready as soon as its command has started, also
// when that crashes a moment later; and one whose container is to start anew
// shows the state of the old container for some moments.
const (
	startPatience   = 2 * time.Second
	restartPatience = 3 * time.Second
)

// patience is how long a verdict must stand before it counts.
func patience(change plan.Change, code failure.Code) time.Duration {
	switch {
	case change.Disruption == plan.Restarts:
		return restartPatience
	case change.Action != plan.Update && code == "":
		return startPatience
	}
	return 0
}

// stands tells whether what a pod's state says is to be acted on: at once,
// unless it is a verdict that may be a moment's.
func (w *waiter) stands(change plan.Change, pod *corev1.Pod, reason string, code failure.Code) bool {
	final := reason == "" || code != "" && code != failure.InsufficientResources
	if !final || patience(change, code) == 0 {
		delete(w.verdicts, pod.Name)
		return true
	}
	known, ok := w.verdicts[pod.Name]
	if !ok || known.code != code {
		w.verdicts[pod.Name] = verdict{w.now(), pod, reason, code}
		return false
	}
	return w.now().Sub(known.since) >= patience(change, code)
}

// judgeStanding acts on the verdicts that have stood for long enough.
func (w *waiter) judgeStanding() {
	for _, name := range slices.Sorted(maps.Keys(w.verdicts)) {
		v := w.verdicts[name]
		if change, ok := w.waiting[name]; ok && w.now().Sub(v.since) >= patience(change, v.code) {
			w.judge(change, v.pod, v.reason, v.code)
		}
	}
}

// judge acts on what a pod's state says.
func (w *waiter) judge(change plan.Change, pod *corev1.Pod, reason string, code failure.Code) {
	if code != failure.InsufficientResources {
		delete(w.unschedulable, pod.Name)
	}
	switch {
	case reason == "":
		delete(w.waiting, pod.Name)
		w.tell(Event{Change: change, Phase: Ready})
		return
	case code == failure.InsufficientResources:
		if w.unschedulable[pod.Name].IsZero() { // the scheduler says so again and again
			w.unschedulable[pod.Name] = w.now()
		}
	case code != "":
		if last := w.lastWords(pod); last != "" {
			reason = strings.TrimRight(reason, "; ") + "; its last line of output: " + last
		}
		w.fail(change, code, reason)
		return
	}
	if w.reasons[pod.Name] != reason {
		w.reasons[pod.Name] = reason
		w.tell(Event{Change: change, Phase: Waiting, Message: reason})
	}
}

func (w *waiter) giveUpUnschedulable() {
	for name, since := range w.unschedulable {
		if change, ok := w.waiting[name]; ok && w.now().Sub(since) > unschedulableGrace {
			w.fail(change, failure.InsufficientResources, w.reasons[name])
		}
	}
}

func (w *waiter) fail(change plan.Change, code failure.Code, reason string) {
	w.giveUp(change, failure.New(code, about(change.Ref), "%s is not ready: %s", change, reason))
}

func (w *waiter) giveUp(change plan.Change, err error) {
	delete(w.waiting, change.PodName())
	w.failed = append(w.failed, err)
	w.tell(Event{Change: change, Phase: Failed, Err: err})
}

// timedOut names every pod that is still waited for.
func (w *waiter) timedOut(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	if cause := context.Cause(ctx); !errors.Is(cause, errNotReady) {
		return cause
	}
	for _, name := range slices.Sorted(maps.Keys(w.waiting)) {
		change, reason := w.waiting[name], w.reasons[name]
		if v, ok := w.verdicts[name]; ok {
			w.judge(change, v.pod, v.reason, v.code)
			continue
		}
		if reason == "" {
			reason = "no node has taken it up"
		}
		w.giveUp(change, failure.New(failure.PodStartupTimeout, about(change.Ref),
			"%s is not ready after %s (--timeout), and goes on starting: %s", change, w.timeout, reason).
			WithHint("See how far it is: sandboxctl status. Another apply waits for it again."))
	}
	return nil
}
