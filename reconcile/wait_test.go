package reconcile

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/render"
)

// podState is a pod as its kubelet reports it.
func podState(t *testing.T, state string, generation, observed int64) *unstructured.Unstructured {
	t.Helper()
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Generation: generation}, Status: corev1.PodStatus{Phase: corev1.PodRunning, ObservedGeneration: observed}}
	status := corev1.ContainerStatus{Name: "sandbox"}
	ready := corev1.ConditionFalse
	switch state {
	case "ready":
		ready = corev1.ConditionTrue
		status.State.Running = &corev1.ContainerStateRunning{}
	case "ended":
		status.State.Terminated = &corev1.ContainerStateTerminated{ExitCode: 1}
	default:
		status.State.Waiting = &corev1.ContainerStateWaiting{Reason: state, Message: "back-off"}
	}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{status}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&pod)
	if err != nil {
		t.Fatal(err)
	}
	return &unstructured.Unstructured{Object: object}
}

// TestVerdictsThatAreAMoments: what a pod shows for a moment is no verdict.
func TestVerdictsThatAreAMoments(t *testing.T) {
	type step struct {
		after    time.Duration
		state    string
		observed int64 // of generation 2
	}
	create := plan.Change{Ref: plan.Ref{Name: "p"}, Action: plan.Create}
	restart := plan.Change{Ref: plan.Ref{Name: "p"}, Action: plan.Update, Disruption: plan.Restarts}
	inPlace := plan.Change{Ref: plan.Ref{Name: "p"}, Action: plan.Update, Disruption: plan.None}
	for name, test := range map[string]struct {
		change plan.Change
		steps  []step
		want   Phase // empty: it is still waited for
		code   failure.Code
	}{
		"a new pod that has just started":     {create, []step{{0, "ready", 2}, {time.Second, "", 0}}, "", ""},
		"a new pod that goes on to run":       {create, []step{{0, "ready", 2}, {3 * time.Second, "", 0}}, Ready, ""},
		"a new pod that crashes after that":   {create, []step{{0, "ready", 2}, {time.Second, "ended", 2}, {time.Second, "CrashLoopBackOff", 2}}, Failed, failure.PodNotRunning},
		"a pod that did not restart":          {inPlace, []step{{0, "ready", 2}}, Ready, ""},
		"a change that the node has not seen": {restart, []step{{0, "ready", 1}, {9 * time.Second, "", 0}}, "", ""},
		"the old container, for a moment":     {restart, []step{{0, "ready", 2}, {time.Second, "ended", 2}, {9 * time.Second, "", 0}}, "", ""},
		"the old image's failure, for a moment": {
			restart, []step{{0, "ImagePullBackOff", 2}, {time.Second, "ContainerCreating", 2}, {time.Second, "ready", 2}, {4 * time.Second, "", 0}}, Ready, ""},
		"a new image that cannot be pulled": {
			restart, []step{{0, "ready", 2}, {time.Second, "ImagePullBackOff", 2}, {4 * time.Second, "", 0}}, Failed, failure.ImagePullBackOff},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Unix(0, 0)
			var last Event
			w := waiter{
				waiting: map[string]plan.Change{"p": test.change}, reasons: map[string]string{},
				unschedulable: map[string]time.Time{}, verdicts: map[string]verdict{},
				tell: func(event Event) { last = event }, now: func() time.Time { return now },
				lastWords: func(*corev1.Pod) string { return "" },
			}
			for _, step := range test.steps {
				now = now.Add(step.after)
				if step.state != "" {
					w.see(podState(t, step.state, 2, step.observed))
				}
				w.judgeStanding()
			}
			if test.want == "" {
				if len(w.waiting) != 1 {
					t.Errorf("got %s, want to wait on", last.Phase)
				}
				return
			}
			if len(w.waiting) != 0 || last.Phase != test.want || failure.CodeOf(last.Err) != test.code {
				t.Errorf("got %s, %v", last.Phase, last.Err)
			}
		})
	}
}

// TestTooLate: what is not ready in time has not failed, and is named by its
// sandbox, also where the plan does not change it.
func TestTooLate(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	var last Event
	w := waiter{
		waiting: map[string]plan.Change{"p": {Ref: plan.Ref{GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Pod"), Name: "p"}, Action: plan.Update}},
		timeout: 25 * time.Second, reasons: map[string]string{}, unschedulable: map[string]time.Time{}, verdicts: map[string]verdict{},
		tell: func(event Event) { last = event }, now: time.Now,
	}
	pod := podState(t, "PodInitializing", 1, 1)
	pod.SetLabels(map[string]string{render.SandboxIDLabel: "api"})
	w.see(pod)
	cancel(errNotReady)
	if err := w.timedOut(ctx, nil); err != nil || len(w.waiting) != 0 {
		t.Errorf("got %v, and %v is waited for", err, w.waiting)
	}
	const want = "pod p (sandbox api) is not ready after 25s (--timeout), and goes on starting: PodInitializing"
	if failure.CodeOf(last.Err) != failure.PodStartupTimeout || !strings.Contains(last.Err.Error(), want) {
		t.Errorf("got %v, want %q", last.Err, want)
	}
}
