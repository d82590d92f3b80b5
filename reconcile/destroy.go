package reconcile

import (
	"cmp"
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/reconcile/pool"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// PlanDestroy says what removing the fleet would remove: all that it owns, its
// workspaces only unless they are kept, and its namespace only if it made that
// and nothing of anybody else is in it.
func (r *Reconciler) PlanDestroy(ctx context.Context, fleet *schema.Fleet, keepWorkspaces bool) (plan.Plan, error) {
	seen, err := r.Observe(ctx, fleet)
	if err != nil {
		return plan.Plan{}, err
	}
	prune := plan.Prune{All: true, Retained: true, KeepVolumes: keepWorkspaces, Namespace: !keepWorkspaces, Claims: true}
	var foreign string
	if seen.Namespace != nil && seen.Live[plan.RefOf(seen.Namespace)] != nil {
		if foreign, err = r.foreign(ctx, fleet); err != nil {
			return plan.Plan{}, err
		}
		prune.Namespace = prune.Namespace && foreign == ""
	}
	p := plan.Make(plan.Input{Fleet: fleet.Name, Namespace: fleet.Namespace, Live: seen.Live, Prune: prune}, nil)
	for i := range p.Changes {
		p.Changes[i].Reason = running(seen.Live[p.Changes[i].Ref]) // else there is none: all of it goes
	}
	for i := range p.Kept {
		if p.Kept[i].Ref.Kind == "Namespace" && foreign != "" {
			p.Kept[i].Reason = foreign
		}
	}
	return p, nil
}

// running says whose a pod is that a program has claimed; empty for all else.
func running(live *unstructured.Unstructured) string {
	pod, ok := pool.Read(live)
	if !ok || pod.Claim == nil || pod.Claim.Until.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s has claimed it until %s", cmp.Or(pod.Claim.By, "a program"), pod.Claim.Until.UTC().Format(time.RFC3339))
}

// Destroy does what the plan of PlanDestroy says, and removes the fleet's
// parent object. It is as Apply in all else.
func (r *Reconciler) Destroy(ctx context.Context, fleet *schema.Fleet, p plan.Plan, tell func(Event)) (Result, error) {
	r = r.of(fleet)
	var namespace []plan.Change
	within := p
	if last := len(p.Changes) - 1; last >= 0 && p.Changes[last].Ref.Kind == "Namespace" {
		within.Changes, namespace = p.Changes[:last], p.Changes[last:]
	}
	result, err := r.Apply(ctx, fleet, within, tell)
	if err != nil {
		result.Left = append(result.Left, namespace...)
		return result, err
	}
	if onlyNamespace(p.Kept) {
		if err := r.deleteParent(ctx, fleet); err != nil {
			return result, err
		}
	}
	if len(namespace) > 0 { // what has come into it since the plan would go with it
		what, err := r.foreign(ctx, fleet)
		if err == nil && what != "" {
			ref := namespace[0].Ref
			err = failure.New(failure.PlanStale, about(ref), "%s stays: since the plan was made, %s", ref, what).
				WithHint("destroy again, and look at what it says of the namespace")
		}
		if err != nil {
			result.Left = append(result.Left, namespace...)
			return result, err
		}
	}
	done, err := r.applyWave(ctx, namespace, tell, r.applyChange)
	result.Done = append(result.Done, done...)
	result.Left = left(p.Changes, result.Done)
	return result, err
}

// onlyNamespace tells whether nothing that carries the fleet's label stays.
func onlyNamespace(kept []plan.Kept) bool {
	for _, k := range kept {
		if k.Ref.Kind != "Namespace" {
			return false
		}
	}
	return true
}

// deleteParent deletes the object that says that there is a fleet, unless
// somebody else is changing the fleet.
func (r *Reconciler) deleteParent(ctx context.Context, fleet *schema.Fleet) error {
	ref := plan.RefOf(render.Parent(fleet, nil))
	for {
		parent, err := r.get(ctx, ref)
		if err != nil || parent == nil {
			return err
		}
		if held := lockOf(parent); r.keepsOut(parent, held) {
			return lockedBy(fleet, held)
		}
		err = r.deleteOnce(ctx, plan.Change{Ref: ref, UID: parent.GetUID(), ResourceVersion: parent.GetResourceVersion()})
		if !apierrors.IsConflict(err) {
			return failure.From(err, about(ref))
		} // somebody may have locked it since
	}
}
