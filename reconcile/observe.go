package reconcile

import (
	"context"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/reconcile/claim"
	"github.com/agentpane/sandboxctl/reconcile/connection"
	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// Observation is what the cluster shows of a fleet.
type Observation struct {
	// Live is all that carries the fleet's label.
	Live map[plan.Ref]*unstructured.Unstructured
	// Namespace is the fleet's namespace, whoever owns it; nil where there is
	// none.
	Namespace *unstructured.Unstructured
	// Cordoned are the nodes that take no pods any more; they are read for
	// fleets that have pools.
	Cordoned map[string]bool
	// Pooled are the pods of pools and what is kept of these beside them, from
	// which the pools' levels are told; nil where nothing is to be said of them.
	Pooled map[plan.Ref]*unstructured.Unstructured
	// Inhabitants has the fleet's pods and volumes, also where Live is a part of
	// the fleet without them; nil where Live is all that matters.
	Inhabitants map[plan.Ref]*unstructured.Unstructured
	// Gateway is the Service of the fleet's egress gateway, also where Live is a
	// part of the fleet only; nil where there is none.
	Gateway *unstructured.Unstructured
}

// Observe reads everything that carries the fleet's label, with one request
// per kind: the answers hold what is to be compared and what is to be pruned.
// For a fleet that has pools, nodes are one more kind.
func (r *Reconciler) Observe(ctx context.Context, fleet *schema.Fleet) (Observation, error) {
	seen := Observation{Live: map[plan.Ref]*unstructured.Unstructured{}}
	var mutex sync.Mutex // protects seen
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(concurrency)
	if len(fleet.Pools) > 0 {
		group.Go(func() (err error) {
			seen.Cordoned, err = claim.Cordoned(ctx, r.client)
			return err
		})
	}
	seen.Pooled, seen.Inhabitants = seen.Live, seen.Live
	for _, kind := range render.KindsOf(fleet) {
		group.Go(func() error {
			if kind.Kind.Kind == "Namespace" {
				namespace, err := r.get(ctx, plan.Ref{GroupVersionKind: kind.Kind, Name: fleet.Namespace})
				mutex.Lock()
				defer mutex.Unlock()
				seen.Namespace = namespace
				if namespace != nil && namespace.GetLabels()[render.PartOfLabel] == render.ApplySetID(fleet) {
					seen.Live[plan.RefOf(namespace)] = namespace
				}
				return err
			}
			objects, err := r.list(ctx, fleet, kind)
			mutex.Lock()
			defer mutex.Unlock()
			for i := range objects {
				seen.Live[plan.RefOf(&objects[i])] = &objects[i]
			}
			return err
		})
	}
	err := group.Wait()
	seen.Gateway = seen.Live[GatewayRef(fleet)]
	return seen, err
}

// list returns what the fleet has of a kind, and of that what the selectors select.
func (r *Reconciler) list(ctx context.Context, fleet *schema.Fleet, kind render.Kind, selectors ...string) ([]unstructured.Unstructured, error) {
	namespace := ""
	if kind.Namespaced {
		namespace = fleet.Namespace
	}
	selector := strings.Join(append(selectors, render.PartOfLabel+"="+render.ApplySetID(fleet)), ",")
	objects, err := connection.List(ctx, r.raw, kind.Kind, kind.Resource.Resource, namespace, selector)
	return objects, failure.From(err, failure.Object{Kind: kind.Resource.Resource, Namespace: namespace})
}

// Options are the ways in which a plan can go further than it does by itself.
type Options struct {
	// Full asks the server about everything, even where nothing seems to change.
	Full bool
	// ForceConflicts takes over fields of other managers, Adopt objects that
	// are there and nobody's.
	ForceConflicts, Adopt bool
	// ReplaceVolumes lets a workspace that cannot be changed in place be
	// replaced, with the loss of all data in it.
	ReplaceVolumes bool
	// Start are idle sandboxes that are to run again.
	Start []string
	// Prune is how far the removal of what is no longer wanted goes.
	Prune plan.Prune
}

// Plan says what applying the objects of the fleet would change. It changes
// nothing. The plan may hold problems: see plan.Plan.Blocked.
func (r *Reconciler) Plan(ctx context.Context, fleet *schema.Fleet, objects []render.Object, options Options) (plan.Plan, error) {
	seen, err := r.Observe(ctx, fleet)
	if err != nil {
		return plan.Plan{}, err
	}
	return r.PlanFrom(ctx, fleet, seen, objects, options)
}

// PlanFrom is Plan with what was observed already. It asks the server about
// what is doubtful, and nothing where nothing is.
func (r *Reconciler) PlanFrom(ctx context.Context, fleet *schema.Fleet, seen Observation, objects []render.Object, options Options) (plan.Plan, error) {
	if seen.Namespace != nil && seen.Namespace.GetDeletionTimestamp() != nil {
		return plan.Plan{}, failure.New(failure.NamespaceTerminating, about(plan.RefOf(seen.Namespace)),
			"namespace %s is being deleted, so nothing can be made in it", fleet.Namespace).
			WithHint("Wait until it is gone, and try again; kubectl get namespace %s -o yaml says what holds it up.", fleet.Namespace)
	}
	objects = resolveGateway(fleet, objects, seen)
	objects, err := withoutForeignNamespace(fleet, objects, seen)
	if err != nil {
		return plan.Plan{}, err
	}
	idle, err := r.idle(ctx, fleet, seen, options.Start)
	if err != nil {
		return plan.Plan{}, err
	}
	objects = idle.On(objects)
	pools, err := r.pools(fleet, seen)
	if err != nil {
		return plan.Plan{}, err
	}
	input := plan.Input{
		Fleet: fleet.Name, Namespace: fleet.Namespace, Desired: plan.Rebase(objects, seen.Live), Pools: pools, Live: seen.Live, Inhabitants: seen.Inhabitants, Sandboxes: len(fleet.Sandboxes),
		Full: options.Full, ReplaceVolumes: options.ReplaceVolumes, Prune: options.Prune,
		Sessions: desiredSessions(fleet, objects), AdoptSessions: options.Adopt,
		Idle: idle,
	}
	answers, err := r.askAll(ctx, input.Questions(), seen.Namespace != nil, options)
	if err != nil {
		return plan.Plan{}, err
	}
	p := plan.Make(input, answers)
	if err := r.askPools(ctx, input, &p, seen.Namespace != nil, options); err != nil {
		return plan.Plan{}, err
	}
	return p, r.planSessions(ctx, fleet, input, &p)
}

// withoutForeignNamespace leaves a namespace that was there before the fleet,
// or belongs to another one, as it is; provided that it enforces at least what
// the file says.
func withoutForeignNamespace(fleet *schema.Fleet, objects []render.Object, seen Observation) ([]render.Object, error) {
	if seen.Namespace == nil || seen.Namespace.GetLabels()[render.PartOfLabel] == render.ApplySetID(fleet) {
		return objects, nil
	}
	const enforce = "pod-security.kubernetes.io/enforce"
	if got := seen.Namespace.GetLabels()[enforce]; !atLeast(got, fleet.PodSecurity) {
		return nil, failure.New(failure.PodSecurityViolation, failure.Object{Kind: "namespace", Name: fleet.Namespace},
			"namespace %s is not this fleet's, and enforces Pod Security profile %q where the file says %q", fleet.Namespace, got, fleet.PodSecurity).
			WithHint("set its label %s=%s, or choose another namespace", enforce, fleet.PodSecurity)
	}
	var rest []render.Object
	for _, object := range objects {
		if object.Object.GetKind() != "Namespace" {
			rest = append(rest, object)
		}
	}
	return rest, nil
}

// atLeast tells whether an enforced profile is as strict as the wanted one.
func atLeast(enforced string, wanted schema.PodSecurity) bool {
	strictness := map[schema.PodSecurity]int{schema.Privileged: 0, schema.Baseline: 1, schema.Restricted: 2}
	return strictness[schema.PodSecurity(enforced)] >= strictness[wanted]
}
