package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"sync"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// Orphan stops owning the objects of the fleet: they stay as they are, and no
// prune will ever see them. It returns how many they were. What selects by
// other labels, as NetworkPolicies do, goes on to work.
func (r *Reconciler) Orphan(ctx context.Context, fleet *schema.Fleet) (orphaned int, err error) {
	ctx, release, _, err := r.awaitLock(ctx, fleet)
	if err != nil {
		return 0, err
	}
	orphaned, err = r.orphanAll(ctx, fleet)
	if err = errors.Join(err, release()); err != nil {
		return orphaned, err
	}
	return orphaned, r.deleteParent(ctx, fleet)
}

func (r *Reconciler) orphanAll(ctx context.Context, fleet *schema.Fleet) (orphaned int, err error) {
	seen, err := r.Observe(ctx, fleet)
	if err != nil {
		return 0, err
	}
	var mutex sync.Mutex // protects orphaned
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(concurrency)
	for ref, live := range seen.Live {
		group.Go(func() error {
			body, err := json.Marshal(map[string]any{"metadata": map[string]any{
				"uid": live.GetUID(), "labels": map[string]any{render.PartOfLabel: nil},
			}})
			if err != nil {
				return err
			}
			change := plan.Change{Ref: ref, Action: plan.Update, Labels: live.GetLabels()}
			_, err = r.audited(change, func() (plan.Change, error) {
				_, err := r.resource(ref).Patch(ctx, ref.Name, types.MergePatchType, body, metav1.PatchOptions{FieldManager: render.Manager})
				return change, failure.From(err, about(ref))
			})
			mutex.Lock()
			defer mutex.Unlock()
			if err == nil {
				orphaned++
			}
			return err
		})
	}
	err = group.Wait()
	return orphaned, err
}
