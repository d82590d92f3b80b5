package watch

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/render"
)

// TestPodsThatFailAtOnce are not replaced at once, nor are others made for them.
func TestPodsThatFailAtOnce(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for name, test := range map[string]struct {
		// deleted are the pods that are to go: the phase and the age of each.
		deleted string
		created int
		// left is how many go and are made now, pause how long the rest waits.
		left  [2]int
		pause time.Duration
	}{
		"one that failed at once":       {deleted: "Failed,2s", created: 1, pause: 8 * time.Second},
		"one that ended at once":        {deleted: "Succeeded,1s", created: 1, pause: 9 * time.Second},
		"one that has worked before":    {deleted: "Failed,10s", created: 1, left: [2]int{1, 1}},
		"one that runs":                 {deleted: "Running,2s", created: 1, left: [2]int{1, 1}},
		"what others need is made":      {deleted: "Failed,2s Running,2s", created: 3, left: [2]int{1, 2}, pause: 8 * time.Second},
		"the first is waited for":       {deleted: "Failed,2s Failed,5s", created: 2, pause: 5 * time.Second},
		"one that is one too many":      {deleted: "Failed,2s", pause: 8 * time.Second},
		"one of a clock that is behind": {deleted: "Failed,-1h", created: 1, left: [2]int{1, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			level := plan.PoolLevel{}
			pooled := map[plan.Ref]*unstructured.Unstructured{}
			for i, words := range strings.Fields(test.deleted) {
				phase, ages, _ := strings.Cut(words, ",")
				age, err := time.ParseDuration(ages)
				if err != nil {
					t.Fatal(err)
				}
				pod := &unstructured.Unstructured{Object: map[string]any{"kind": "Pod", "status": map[string]any{"phase": phase}}}
				pod.SetName(fmt.Sprintf("p-%d", i))
				pod.SetLabels(map[string]string{render.WarmPoolLabel: "true", render.WarmStateLabel: render.Warm})
				pod.SetCreationTimestamp(metav1.NewTime(now.Add(-age)))
				pooled[plan.RefOf(pod)] = pod
				level.Changes = append(level.Changes, plan.Change{Ref: plan.RefOf(pod), Action: plan.Delete})
			}
			for range test.created {
				level.Changes = append(level.Changes, plan.Change{Action: plan.Create})
			}
			rest, pause := withoutFailed(level, pooled, now)
			if left := [2]int{rest.Count(plan.Delete), rest.Count(plan.Create)}; left != test.left || pause != test.pause {
				t.Errorf("%d go and are made, and the rest waits for %s; want %d, %s", left, pause, test.left, test.pause)
			}
		})
	}
}
