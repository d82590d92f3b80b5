//go:build bench

package pool

import (
	"encoding/json"
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// BenchmarkReconcile10000 decides what becomes of a pool of 10,000 warm pods,
// from the objects as a LIST returns them.
func BenchmarkReconcile10000(b *testing.B) {
	const n = 10_000
	p := rendered(b, "min: 10000, max: 20000")
	var objects []*unstructured.Unstructured
	for slot := range n {
		pod, _ := p.WarmPod(slot, "x")
		pod.SetUID("uid")
		pod.SetResourceVersion(fmt.Sprint(slot + 1))
		var status map[string]any
		if err := json.Unmarshal([]byte(`{"phase":"Running","conditions":[{"type":"Ready","status":"True","lastTransitionTime":"2026-11-24T11:00:00Z"}]}`), &status); err != nil {
			b.Fatal(err)
		}
		pod.Object["status"] = status
		objects = append(objects, pod)
	}
	b.ReportAllocs()
	for b.Loop() {
		pods := make([]Pod, 0, n)
		for _, object := range objects {
			pod, _ := Read(object)
			pods = append(pods, pod)
		}
		if level := At(Input{Pool: p, Pods: pods, Now: now}); !level.Unchanged() {
			b.Fatalf("it changes: %d → %d", level.From, level.To)
		}
	}
}
