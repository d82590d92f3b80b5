package watch

import (
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
