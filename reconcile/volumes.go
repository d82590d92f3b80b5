package reconcile

import (
	"context"
	"slices"

	"github.com/agentpane/sandboxctl/reconcile/plan"
)

// vacate deletes the pods that mount a workspace of the wave which is to be
// replaced: it goes only after them. They are made again with their own wave.
func (r *Reconciler) vacate(ctx context.Context, wave, all []plan.Change) error {
	var claims []string
	for _, change := range wave {
		if change.Ref.Kind == "PersistentVolumeClaim" && change.Action == plan.Replace {
			claims = append(claims, change.Ref.Name)
		}
	}
	for _, change := range all {
		mounts := slices.ContainsFunc(plan.ClaimsOf(change.Desired), func(claim string) bool { return slices.Contains(claims, claim) })
		if mounts && change.Action == plan.Replace {
			if err := r.deleteAndWait(ctx, change); err != nil {
				return err
			}
		}
	}
	return nil
}
