package watch

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/reconcile/sandbox"
	"github.com/agentpane/sandboxctl/render"
)

// podStates knows how the fleet's pods are, to tell when that changes.
type podStates struct {
	mutex  sync.Mutex // protects states
	states map[types.UID]string
}

func newPodStates() *podStates { return &podStates{states: map[types.UID]string{}} }

// see takes note of a pod, and returns what is to be told of it: that it became
// ready, or why it cannot. That it is starting is no news.
func (p *podStates) see(object *unstructured.Unstructured, gone bool) []Event {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if gone {
		delete(p.states, object.GetUID())
		return nil
	}
	var pod corev1.Pod
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &pod); err != nil || pod.DeletionTimestamp != nil {
		return nil
	}
	reason, code := sandbox.NotReady(&pod)
	before, known := p.states[pod.UID]
	state := reason
	if reason != "" && code == "" {
		state = starting
	}
	p.states[pod.UID] = state
	event := Event{
		Scope: scopeOf(object), Ref: plan.RefOf(object), UID: pod.UID, Pool: pod.Labels[render.PoolIDLabel], Message: reason,
		Took: readySince(&pod).Sub(pod.CreationTimestamp.Time),
	}
	switch {
	case state == before && known, state == starting:
		return nil
	case state == "" && !known: // it was there before us
		return nil
	case state == "":
		event.Type = Ready
	default:
		event.Type = NotReady
	}
	return []Event{event}
}

// readySince is when the pod's readiness became what it is.
func readySince(pod *corev1.Pod) time.Time {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.LastTransitionTime.Time
		}
	}
	return pod.CreationTimestamp.Time
}

// starting stands for all states that pass by themselves.
const starting = "\x00starting"
