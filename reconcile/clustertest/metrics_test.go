//go:build integration && internet

package clustertest_test

import (
	"context"
	"encoding/json"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/agentpane/sandboxctl/reconcile/clustertest"
)

// TestMetricsOfAPod: metrics.k8s.io tells what a pod uses, as `kubectl top
// pods` asks for it. A kind cluster has no such API.
func TestMetricsOfAPod(t *testing.T) {
	cluster := clustertest.Connect(t)
	pod := cluster.Run(t, restrictedPod(cluster.Namespace(t, nil)))
	path := "/apis/metrics.k8s.io/v1beta1/namespaces/" + pod.Namespace + "/pods/" + pod.Name
	var metrics struct {
		Containers []struct {
			Name  string
			Usage corev1.ResourceList
		}
	}
	clustertest.Eventually(t, "metrics of the pod are there", func(ctx context.Context) bool {
		defer pause(ctx)
		content, err := cluster.Client.CoreV1().RESTClient().Get().AbsPath(path).DoRaw(ctx)
		return err == nil && json.Unmarshal(content, &metrics) == nil
	})
	if len(metrics.Containers) != 1 || metrics.Containers[0].Name != pod.Spec.Containers[0].Name {
		t.Fatalf("got metrics of %+v, want those of the pod's container", metrics.Containers)
	}
	usage := metrics.Containers[0].Usage
	if _, ok := usage[corev1.ResourceCPU]; !ok || usage.Memory().IsZero() {
		t.Errorf("got usage %v, want a process's: the CPU time, and some memory", usage)
	}
}
