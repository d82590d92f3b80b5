package reconcile

import (
	"context"
	"errors"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/agentpane/sandboxctl/reconcile/audit"
	"github.com/agentpane/sandboxctl/reconcile/claim"
	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/reconcile/pool"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// pools is what a plan needs to know of the fleet's pools.
func (r *Reconciler) pools(fleet *schema.Fleet, seen Observation) (plan.Pools, error) {
	pools := plan.Pools{
		Declared: len(fleet.Pools), Live: seen.Pooled, Cordoned: seen.Cordoned, Now: r.now(),
		Random: func() string { return r.random(8) },
	}
	if seen.Pooled == nil && !hasPooled(seen.Live) { // a plan of one sandbox of its own, of which there may be thousands
		return pools, nil
	}
	var err error
	pools.Pools, err = render.Pools(fleet)
	return pools, err
}

// askPools asks the server about the pods that pools are to get.
func (r *Reconciler) askPools(ctx context.Context, input plan.Input, p *plan.Plan, namespaceExists bool, options Options) error {
	questions := input.PoolQuestions(*p)
	for i := range questions {
		questions[i].Desired = questions[i].Desired.DeepCopy()
		questions[i].Desired.SetResourceVersion(claim.NoResourceVersion)
	}
	answers, err := r.askAll(ctx, questions, namespaceExists, options)
	p.AnswerPools(answers)
	return err
}

// hasPooled tells whether there is anything of a pool among the objects.
func hasPooled(live map[plan.Ref]*unstructured.Unstructured) bool {
	for _, object := range live {
		if object.GetLabels()[render.WarmPoolLabel] == "true" {
			return true
		}
	}
	return false
}

// claims returns the client that takes pods out of the pools of the plan's
// fleet.
func (r *Reconciler) claims(p plan.Plan) (*claim.Client, error) {
	fleet := &schema.Fleet{Name: p.Fleet, Namespace: p.Namespace, PodSecurity: schema.PodSecurity(r.profile())}
	claims, err := claim.NewFor(r.client, fleet, r.now, r.random, "")
	if err != nil {
		return nil, err
	}
	claims.Audit(r.audit)
	if r.writes != nil {
		claims.Tell(r.writes.Wrote)
	}
	return claims, nil
}

// start makes a sandbox's new pod: one out of its pool, if one fits, else a new
// one. The change that it returns says which pod that is.
func (r *Reconciler) start(ctx context.Context, claims *claim.Client, change plan.Change) (plan.Change, error) {
	change.Became = change.Desired.GetName()
	if change.Adopt == nil {
		return change, r.admitted(ctx, change, func() error { return r.create(ctx, change) })
	}
	adoption := claim.Adoption{
		Pool: change.Adopt.Pool, Sandbox: change.Adopt.Sandbox, Cold: change.Desired.GetName(),
		Object: &unstructured.Unstructured{Object: change.Adopt.Object},
	}
	if change.Adopt.Volume != nil {
		adoption.Volume = &unstructured.Unstructured{Object: change.Adopt.Volume}
	}
	adopted, err := claims.Adopt(ctx, adoption)
	if err != nil {
		return change, err
	}
	if adopted != nil {
		change.Became = adopted.GetName()
		return change, nil
	}
	if adoption.Volume != nil {
		volume := plan.Change{Ref: plan.RefOf(adoption.Volume), Action: plan.Create, Desired: adoption.Volume, Labels: adoption.Volume.GetLabels()}
		if _, err := r.audited(volume, func() (plan.Change, error) {
			_, err := r.patch(ctx, adoption.Volume, metav1.PatchOptions{})
			return volume, failure.From(err, about(volume.Ref))
		}); err != nil {
			return change, err
		}
	}
	if err := r.admitted(ctx, change, func() error { return r.create(ctx, change) }); err != nil {
		return change, err
	}
	return change, claims.Settle(ctx, adoption)
}

// applyLevel brings a pool to its level, and records what it was found with and
// what was added.
func (r *Reconciler) applyLevel(ctx context.Context, fleet *schema.Fleet, claims *claim.Client, level plan.PoolLevel, tell func(Event)) ([]plan.Change, error) {
	if err := r.ensureEnforced(ctx, fleet, level.Changes); err != nil {
		return nil, err
	}
	changes, err := r.withGateway(ctx, fleet, level.Changes)
	if err != nil {
		return nil, err
	}
	size := 0
	if r.audit != nil && len(changes) > 0 {
		found, err := claims.Discover(ctx, level.Name, changes[0].Labels[render.PoolIDLabel])
		if err != nil {
			return nil, err
		}
		size = len(found)
	}
	done, err := r.applyWave(ctx, changes, tell, func(ctx context.Context, change plan.Change) (plan.Change, error) {
		return r.applyPoolChange(ctx, claims, change)
	})
	if requested := level.Count(plan.Create); requested > 0 {
		made := plan.PoolLevel{Changes: done}
		size += made.Count(plan.Create) - made.Count(plan.Delete)
		about := audit.About{Namespace: fleet.Namespace, ResourceName: level.Name}
		err = errors.Join(err, r.audit.Prewarm(about, requested, made.Count(plan.Create), size, err))
	}
	return done, err
}

// applyPoolChange makes or deletes one pod of a pool. Which pods these are
// matters to nobody: what has changed since the plan is left as it is.
func (r *Reconciler) applyPoolChange(ctx context.Context, claims *claim.Client, change plan.Change) (plan.Change, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	if change.Action == plan.Create {
		err := r.admitted(ctx, change, func() error {
			_, err := claims.Make(ctx, change.Desired, change.Volume)
			return err
		})
		if claim.Taken(err) {
			err = errUntouched
		}
		return change, err
	}
	return r.audited(change, func() (plan.Change, error) {
		err := r.delete(ctx, change)
		if failure.CodeOf(err) == failure.PlanStale { // it was claimed
			err = errUntouched
		}
		return change, err
	})
}

// foldClaims notes, before claimed pods go, that they were claimed: the pools'
// metrics and their size depend on it. Where the notes go, too, it does not.
func (r *Reconciler) foldClaims(ctx context.Context, claims *claim.Client, fleet string, changes []plan.Change) error {
	going := map[types.UID]bool{}
	for _, change := range changes {
		if change.Ref.Kind == "ConfigMap" && change.Ref.Name == render.PoolStateName(fleet) && change.Action == plan.Delete {
			return nil
		}
		if change.Ref.Kind == "Pod" && (change.Action == plan.Delete || change.Action == plan.Replace) && render.IsPoolPod(change.Ref.Name) {
			going[change.UID] = true
		}
	}
	if len(going) == 0 {
		return nil
	}
	pods, err := claims.Pods(ctx, "")
	if err != nil {
		return err
	}
	var gone []pool.Pod
	for _, pod := range pods {
		if going[pod.UID] {
			gone = append(gone, *pod)
		}
	}
	return claims.Fold(ctx, gone...)
}
