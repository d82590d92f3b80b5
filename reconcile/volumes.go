package reconcile

import (
	"context"
	"slices"

	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/render"
)

// vacate deletes the pods that mount a workspace of the wave which is to be
// replaced: it goes only after them. Those that are to be made again are with
// their own wave; those that are to go are gone then.
func (r *Reconciler) vacate(ctx context.Context, wave, all []plan.Change) error {
	claims, sandboxes := map[string]bool{}, map[string]bool{}
	for _, change := range wave {
		if change.Ref.Kind == "PersistentVolumeClaim" && change.Action == plan.Replace {
			claims[change.Ref.Name], sandboxes[change.Labels[render.SandboxIDLabel]] = true, true
		}
	}
	for _, change := range all {
		mounts := slices.ContainsFunc(plan.ClaimsOf(change.Desired), func(claim string) bool { return claims[claim] })
		goes := change.Action == plan.Delete && change.Ref.Kind == "Pod" && sandboxes[change.Labels[render.SandboxIDLabel]]
		if goes || mounts && change.Action == plan.Replace {
			if err := r.deleteAndWait(ctx, change); err != nil {
				return err
			}
		}
	}
	return nil
}
