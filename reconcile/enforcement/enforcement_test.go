package enforcement_test

import (
	"io"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"

	"github.com/agentpane/sandboxctl/reconcile/enforcement"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// TestNothingIsLeftBehind: neither what was made by a request whose answer was
// lost, nor what a probe left that was killed; but another's that may run yet is.
func TestNothingIsLeftBehind(t *testing.T) {
	const namespace = "n"
	now := time.Now()
	metadata := func(name string, age time.Duration) metav1.ObjectMeta {
		return metav1.ObjectMeta{
			Namespace: namespace, Name: name, CreationTimestamp: metav1.NewTime(now.Add(-age)),
			Labels: map[string]string{render.ComponentLabel: render.ProbeComponent},
		}
	}
	client := fake.NewSimpleDynamicClient(scheme.Scheme,
		&corev1.Pod{ObjectMeta: metadata("abandoned", time.Hour)}, &networkingv1.NetworkPolicy{ObjectMeta: metadata("abandoned", time.Hour)},
		&corev1.Pod{ObjectMeta: metadata("another's", time.Minute)}, &networkingv1.NetworkPolicy{ObjectMeta: metadata("another's", time.Minute)},
	)
	made := 0
	client.PrependReactor("create", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		object := action.(clienttesting.CreateAction).GetObject().(*unstructured.Unstructured)
		made++
		object.SetName(object.GetGenerateName() + strconv.Itoa(made))
		object.SetNamespace(namespace)
		object.SetCreationTimestamp(metav1.NewTime(now))
		if err := client.Tracker().Create(action.GetResource(), object, namespace); err != nil {
			t.Error(err)
		}
		if object.GetKind() == "Pod" {
			return true, nil, io.ErrUnexpectedEOF
		}
		return true, object, nil
	})
	result, err := enforcement.Probe(t.Context(), client, &schema.Fleet{Name: "f", Namespace: namespace}, time.Now)
	if err != nil || result.Verdict != enforcement.Inconclusive || made != 2 {
		t.Fatalf("got %+v, %v after %d objects", result, err, made)
	}
	for _, resource := range []string{"pods", "networkpolicies"} {
		version := corev1.SchemeGroupVersion
		if resource != "pods" {
			version = networkingv1.SchemeGroupVersion
		}
		list, err := client.Resource(version.WithResource(resource)).Namespace(namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(list.Items) != 1 || list.Items[0].GetName() != "another's" {
			t.Errorf("there are %d %s, want the other probe's: %v", len(list.Items), resource, list.Items)
		}
	}
}
