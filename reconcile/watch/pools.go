package watch

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/reconcile"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/reconcile/pool"
	"github.com/agentpane/sandboxctl/render"
)

// tellPools tells how many pods each pool has.
func (w *Watcher) tellPools(want *wanted, seen reconcile.Observation) {
	pools := map[string]PoolPods{}
	for _, p := range want.fleet.Pools {
		pools[p.Name] = PoolPods{}
	}
	for _, live := range seen.Pooled {
		pod, ok := pool.Read(live)
		pods, declared := pools[pod.Pool]
		switch {
		case !ok || !declared || pod.Going || pod.Ended != "":
			continue
		case pod.Claim != nil:
			pods.Claimed++
		case pod.Ready:
			pods.Ready++
		default:
			pods.Starting++
		}
		pools[pod.Pool] = pods
	}
	for name, pods := range pools {
		w.tell(Event{Type: PoolSeen, Pool: name, Pods: pods})
	}
}

// failurePause is how long a pool's pod that fails keeps its slot, from its start:
// where a node refuses it, its successor fails as soon.
const failurePause = 10 * time.Second

// withoutFailed leaves out of a pool's level the pods that failed so soon after
// their start, with as many of those that are to be made, and tells for how long.
func withoutFailed(level plan.PoolLevel, pooled map[plan.Ref]*unstructured.Unstructured, now time.Time) (rest plan.PoolLevel, pause time.Duration) {
	failed := 0
	level.Changes = slices.DeleteFunc(slices.Clone(level.Changes), func(change plan.Change) bool {
		live := pooled[change.Ref]
		if change.Action != plan.Delete || live == nil {
			return false
		}
		pod, _ := pool.Read(live)
		left := failurePause - now.Sub(pod.Created)
		if pod.Ended == "" || left <= 0 || left > failurePause { // a clock that is wrong has nobody wait
			return false
		}
		failed++
		pause = sooner(pause, left)
		return true
	})
	level.Changes = slices.DeleteFunc(level.Changes, func(change plan.Change) bool {
		if change.Action != plan.Create || failed == 0 {
			return false
		}
		failed--
		return true
	})
	return level, pause
}

// tellClaim tells that a pod was claimed since the watcher began.
func (w *Watcher) tellClaim(before, after *unstructured.Unstructured) {
	if after == nil {
		return
	}
	pod, ok := pool.Read(after)
	if !ok || pod.Claim == nil || pod.Claim.At.Before(w.begun) {
		return
	}
	if before != nil {
		if was, ok := pool.Read(before); ok && was.Claim != nil && was.UID == pod.UID {
			return
		}
	}
	w.tell(Event{Type: Claimed, Scope: scopeOf(after), Ref: plan.RefOf(after), UID: pod.UID, Pool: pod.Pool, Took: pod.Claim.Took, Message: render.Origin(pod.Claim.Warm)})
}
