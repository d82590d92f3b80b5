package sandbox

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/agentpane/sandboxctl/reconcile/failure"
)

// TestNotReadyOfUnscheduled: a pod that is too large is told apart from one
// whose volume is on its way.
func TestNotReadyOfUnscheduled(t *testing.T) {
	for message, want := range map[string]failure.Code{
		"0/1 nodes are available: 1 Insufficient cpu.":                              failure.InsufficientResources,
		`0/1 nodes are available: persistentvolumeclaim "w-1" not found.`:           "",
		"0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims": failure.InsufficientResources,
	} {
		pod := &corev1.Pod{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{
			{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: message},
		}}}
		reason, code := NotReady(pod)
		if code != want || reason != "Unschedulable: "+message {
			t.Errorf("%q: %q with code %q, want code %q", message, reason, code, want)
		}
	}
}
