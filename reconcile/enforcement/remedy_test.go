package enforcement

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"

	"github.com/agentpane/sandboxctl/schema"
)

// TestRemedy: the image is spoken of only where it is the reason.
func TestRemedy(t *testing.T) {
	waiting := func(reason string) corev1.PodStatus {
		return corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: "back-off"}},
		}}}
	}
	for name, test := range map[string]struct {
		status corev1.PodStatus
		reason string
		image  bool
	}{
		"an image that cannot be pulled": {waiting("ImagePullBackOff"), "does not run: ImagePullBackOff: back-off", true},
		"an image without the program":   {waiting("RunContainerError"), "RunContainerError", true},
		"a program that ends": {corev1.PodStatus{Phase: corev1.PodFailed, ContainerStatuses: []corev1.ContainerStatus{{
			State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1}},
		}}}, "it ended too early", true},
		"an evicted pod": {corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted"}, "it has ended: Evicted", false},
		"a full node": {corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: "0/1 nodes are available",
		}}}, "0/1 nodes are available, still after 1m30s", false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				result := probeWith(t, test.status)
				if result.Verdict != Inconclusive || !strings.Contains(result.Reason, test.reason) {
					t.Errorf("got %s: %s; want %q", result.Verdict, result.Reason, test.reason)
				}
				if got := strings.Contains(result.Remedy(), "gateway-image"); got != test.image {
					t.Errorf("the remedy is %q", result.Remedy())
				}
			})
		})
	}
}

// probeWith probes where every pod has that status from the beginning.
func probeWith(t *testing.T, status corev1.PodStatus) Result {
	t.Helper()
	client := fake.NewSimpleDynamicClient(scheme.Scheme)
	client.PrependReactor("create", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		object := action.(clienttesting.CreateAction).GetObject().(*unstructured.Unstructured)
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&status)
		if err != nil {
			t.Error(err)
		}
		object.Object["status"] = content
		object.SetName("probe")
		object.SetNamespace("n")
		object.SetCreationTimestamp(metav1.NewTime(time.Now()))
		return true, object, client.Tracker().Create(action.GetResource(), object, "n")
	})
	result, err := Probe(context.WithoutCancel(t.Context()), client, &schema.Fleet{Name: "f", Namespace: "n"}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return result
}
