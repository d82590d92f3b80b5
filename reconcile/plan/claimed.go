package plan

import (
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/reconcile/proof"
	"github.com/agentpane/sandboxctl/render"
)

// relist has the sandboxes that programs have claimed follow the allowlist of
// their pool's template, as declared ones do: the one that they began with is no
// longer in the file.
func (in Input) relist(plan *Plan) {
	for ref, live := range in.Live {
		if !in.isClaimed(live) || over(live) != "" {
			continue
		}
		p, declared := in.poolOf(live)
		owned := proof.Owned(live, render.Manager)
		if !declared || owned == nil || live.GetLabels()[render.EgressLabel] == p.Allowlist() {
			continue
		}
		change := Change{
			Ref: ref, Action: Update, Path: p.Path, Disruption: None, Reason: "the allowlist of pool " + p.Name + " is another by now",
			UID: live.GetUID(), ResourceVersion: live.GetResourceVersion(), Seen: Digest(live), Labels: live.GetLabels(),
			Desired: named(owned, live),
		}
		after := live.DeepCopy()
		for _, object := range []*unstructured.Unstructured{change.Desired, after} {
			labels := object.GetLabels()
			delete(labels, render.EgressLabel)
			if id := p.Allowlist(); id != "" {
				labels[render.EgressLabel] = id
			}
			object.SetLabels(labels)
		}
		change.Fields = Diff(live.Object, after.Object)
		plan.Changes = append(plan.Changes, change)
	}
}

// listsClaimed tells whether an object is the allowlist of a claimed sandbox whose
// pool the file does not have any more: there is no other list for it.
func (in Input) listsClaimed(ref Ref) bool {
	id, isAllowlist := render.AllowlistID(ref.Name)
	if !isAllowlist {
		return false
	}
	for _, live := range in.Live {
		if !in.isClaimed(live) || live.GetLabels()[render.EgressLabel] != id {
			continue
		}
		if _, declared := in.poolOf(live); !declared {
			return true
		}
	}
	return false
}

// isClaimed tells whether an object is a pod that a program has claimed, and that
// stays.
func (in Input) isClaimed(live *unstructured.Unstructured) bool {
	if live.GetKind() != "Pod" || !leased(live) {
		return false
	}
	stays, _ := in.pooled(live)
	return stays
}

// claimedVolumes are the workspaces of the sandboxes that programs have claimed.
// One that is retained is no longer its pod's, and stays as long as that does.
func (in Input) claimedVolumes() map[string]bool {
	volumes := map[string]bool{}
	for _, live := range in.Live {
		if in.isClaimed(live) {
			volumes[render.WorkspaceOf(live)] = true
		}
	}
	return volumes
}

// poolOf is the pool of the file that a pod is from; false where the file has it
// no more.
func (in Input) poolOf(pod *unstructured.Unstructured) (render.Pool, bool) {
	id := pod.GetLabels()[render.PoolIDLabel]
	i := slices.IndexFunc(in.Pools.Pools, func(p render.Pool) bool { return p.Pod.GetLabels()[render.PoolIDLabel] == id })
	if i < 0 {
		return render.Pool{}, false
	}
	return in.Pools.Pools[i], true
}
