package egress

import (
	"context"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cachetesting "k8s.io/client-go/tools/cache/testing"
)

// TestWatchKeepsIdentitiesOnly: of a pod, what says who it is.
func TestWatchKeepsIdentitiesOnly(t *testing.T) {
	pod := func() *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p", UID: "u", Labels: map[string]string{"some": "label"}},
			Spec:       corev1.PodSpec{HostNetwork: true},
			Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}}},
		}
	}
	whole := pod()
	whole.Annotations = map[string]string{"a": "long text"}
	whole.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "somebody"}}
	whole.Spec.Containers = []corev1.Container{{Name: "c", Image: "i"}}
	whole.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c"}}
	source := cachetesting.NewFakeControllerSource()
	defer source.Shutdown()
	source.Add(whole)

	ctx, cancel := context.WithCancel(t.Context())
	seen := make(chan *corev1.Pod, 1)
	controller := inform(source, keepIdentity, func(pod *corev1.Pod) { seen <- pod }, func(*corev1.Pod) {})
	var running sync.WaitGroup
	running.Go(func() { controller.RunWithContext(ctx) })
	got := <-seen
	cancel()
	running.Wait()
	want := pod()
	want.ResourceVersion = got.ResourceVersion
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what is kept (-want +got):\n%s", diff)
	}
}
