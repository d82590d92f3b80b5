package reconcile

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// about is the object that a failure is about.
func about(ref plan.Ref) failure.Object {
	return failure.Object{Kind: strings.ToLower(ref.Kind), Namespace: ref.Namespace, Name: ref.Name}
}

// onSeen makes a request whose precondition is the object as the plan saw it.
// Where only its resourceVersion has moved on since, by what the server notes
// down, it is made again with the new one.
func (r *Reconciler) onSeen(ctx context.Context, change plan.Change, request func(plan.Change) error) error {
	for {
		err := request(change)
		if !apierrors.IsConflict(err) || len(conflictsOf(err)) > 0 {
			return failure.From(err, about(change.Ref))
		}
		current, getErr := r.get(ctx, change.Ref)
		if getErr != nil {
			return getErr
		}
		if current == nil && (change.Action == plan.Delete || change.Action == plan.Replace) {
			r.deleting(change)
			return nil // it was on its way out
		}
		if drifted(current, change) || current.GetResourceVersion() == change.ResourceVersion {
			return outdated(change)
		}
		change.ResourceVersion = current.GetResourceVersion()
	}
}

// outdated is the failure of a change whose object is not what the plan saw.
func outdated(change plan.Change) error {
	return failure.New(failure.PlanStale, about(change.Ref), "%s has changed since the plan was made", change).
		WithHint("plan and apply again")
}

// drifted tells whether an object is no longer what the plan saw.
func drifted(current *unstructured.Unstructured, change plan.Change) bool {
	if current == nil || change.UID == "" {
		return (current == nil) != (change.UID == "")
	}
	if !change.IdleSince.IsZero() && plan.LastActivity(current).After(change.IdleSince) { // somebody uses it by now
		return true
	}
	return current.GetUID() != change.UID || plan.Digest(current) != change.Seen
}

// CheckFresh tells whether the objects of a plan are still as it saw them; what is
// not is named.
func (r *Reconciler) CheckFresh(ctx context.Context, p plan.Plan) error {
	var stale []string
	for _, change := range p.Changes {
		current, err := r.get(ctx, change.Ref)
		switch {
		case err != nil:
			return err
		case !drifted(current, change):
		case current == nil:
			stale = append(stale, fmt.Sprintf("%s has gone", change))
		case change.UID == "":
			stale = append(stale, fmt.Sprintf("%s was made", change))
		default:
			stale = append(stale, fmt.Sprintf("%s has changed", change))
		}
	}
	return staleError(p, stale)
}

// staleError names what is not as the plan saw it; nil where that is nothing.
func staleError(p plan.Plan, stale []string) error {
	if len(stale) == 0 {
		return nil
	}
	return failure.New(failure.PlanStale, failure.Object{Kind: "fleet", Namespace: p.Namespace, Name: p.Fleet},
		"the plan is out of date: since it was made, %s", strings.Join(stale, ", ")).
		WithHint("plan and apply again; a saved plan is made anew with plan --out")
}

// checkAllowlists tells whether no pod is under an allowlist that is to go, but
// those that the plan ends or puts under another: a program may have claimed one
// since.
func (r *Reconciler) checkAllowlists(ctx context.Context, fleet *schema.Fleet, p plan.Plan) error {
	var ids []string
	changes := map[plan.Ref]plan.Change{}
	for _, change := range p.Changes {
		changes[change.Ref] = change
		if id, isAllowlist := render.AllowlistID(change.Ref.Name); isAllowlist && change.Action == plan.Delete {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	pods := render.KindOf(corev1.SchemeGroupVersion.WithKind("Pod"))
	under, err := r.list(ctx, fleet, pods, render.EgressLabel+" in ("+strings.Join(ids, ",")+")")
	if err != nil {
		return err
	}
	var stale []string
	for i := range under {
		pod := &under[i]
		change := changes[plan.RefOf(pod)]
		relabelled := change.Desired != nil && change.Desired.GetLabels()[render.EgressLabel] != pod.GetLabels()[render.EgressLabel]
		if !plan.Over(pod) && change.Action != plan.Delete && change.Action != plan.Replace && !relabelled {
			stale = append(stale, fmt.Sprintf("%s came under an allowlist that is to go", plan.RefOf(pod).Of(pod.GetLabels()[render.SandboxIDLabel])))
		}
	}
	return staleError(p, stale)
}

// adoptionProblem says why an object that is there cannot become the fleet's.
func adoptionProblem(existing, desired *unstructured.Unstructured, adopt bool) error {
	ref := plan.RefOf(existing)
	owner := existing.GetLabels()[render.PartOfLabel]
	switch {
	case owner == desired.GetLabels()[render.PartOfLabel]: // it is the fleet's, and was made just now
		return nil
	case owner != "":
		return failure.New(failure.AdoptionRefused, about(ref), "%s belongs to %s", ref, ownerText(existing, owner)).
			WithHint("rename what the file makes it from, or have the other one give it up: --adopt takes only what is nobody's")
	case !adopt:
		return failure.New(failure.AdoptionRefused, about(ref), "%s is there and was not made by sandboxctl", ref).
			WithHint("--adopt takes it over")
	}
	return nil
}

// ownerText says whose an object is that carries the label of another set.
func ownerText(object *unstructured.Unstructured, set string) string {
	if fleet := object.GetLabels()[render.FleetLabel]; fleet != "" {
		return "another fleet, " + fleet
	}
	return "another tool (" + render.PartOfLabel + "=" + set + ")"
}
