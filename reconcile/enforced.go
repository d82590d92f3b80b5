package reconcile

import (
	"context"
	"encoding/json"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/agentpane/sandboxctl/reconcile/enforcement"
	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// enforcementManager is the field manager of render.EnforcementAnnotation: one of
// its own, as that is none of what is applied.
const enforcementManager = "sandboxctl-probe"

// WithEnforcement has Apply make no pod before it is known that the cluster
// enforces NetworkPolicy, unless the fleet's file says that it may do without.
func WithEnforcement() Option { return func(r *Reconciler) { r.enforce = true } }

// ensureEnforced refuses a wave that makes pods whose policies would not hold.
// What it costs is one request, and a probe of some seconds once a day.
func (r *Reconciler) ensureEnforced(ctx context.Context, fleet *schema.Fleet, wave []plan.Change) error {
	makesPods := slices.ContainsFunc(wave, func(change plan.Change) bool {
		return change.Ref.Kind == "Pod" && (change.Action == plan.Create || change.Action == plan.Replace)
	})
	if !r.enforce || !makesPods || fleet.Egress.Unenforced == schema.Allow {
		return nil
	}
	result, err := r.Enforcement(ctx, fleet, false)
	if err != nil {
		return err
	}
	return enforcementProblem(fleet, result)
}

// enforcementProblem is the failure that a verdict amounts to; nil for the one
// that policies are enforced.
func enforcementProblem(fleet *schema.Fleet, result enforcement.Result) error {
	object := failure.Object{Kind: "fleet", Namespace: fleet.Namespace, Name: fleet.Name}
	switch result.Verdict {
	case enforcement.Enforced:
		return nil
	case enforcement.NotEnforced:
		return failure.New(failure.NetworkIsolationUnsupported, object,
			"the cluster does not enforce NetworkPolicy, so the allowlists of fleet %s would not hold; no pod was made", fleet.Name).
			WithHint("use a network plugin that enforces them, or accept it in the file: egress: {unenforced: allow}").With("reason", result.Reason)
	}
	return failure.New(failure.NetworkIsolationUnsupported, object,
		"it cannot be told whether the cluster enforces NetworkPolicy, so no pod was made: %s", result.Reason).
		WithHint("%s Or accept it in the file: egress: {unenforced: allow}", result.Remedy()).With("reason", result.Reason)
}

// Enforcement tells whether the cluster enforces NetworkPolicy: by the verdict of
// an earlier probe, as long as that holds and anew does not ask for another. Of
// several who ask at once one probes: its pods would take the others' room.
func (r *Reconciler) Enforcement(ctx context.Context, fleet *schema.Fleet, anew bool) (enforcement.Result, error) {
	ref := plan.Ref{
		GroupVersionKind: networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"),
		Namespace:        fleet.Namespace, Name: render.DenyAll(fleet),
	}
	known, policy, err := r.knownEnforcement(ctx, ref)
	if err != nil || known.Verdict != "" && !anew {
		return known, err
	}
	select {
	case r.probing <- struct{}{}:
		defer func() { <-r.probing }()
	case <-ctx.Done():
		return enforcement.Result{}, context.Cause(ctx)
	}
	if !anew {
		if known, policy, err = r.knownEnforcement(ctx, ref); err != nil || known.Verdict != "" {
			return known, err
		}
	}
	result, err := enforcement.Probe(ctx, r.client, fleet, r.now)
	if err != nil || !policy {
		return result, err
	}
	return result, r.noteEnforcement(ctx, ref, result)
}

// knownEnforcement is the verdict that is noted on the policy, as long as it
// holds; policy tells whether there is one to note it on.
func (r *Reconciler) knownEnforcement(ctx context.Context, ref plan.Ref) (known enforcement.Result, policy bool, err error) {
	object, err := r.get(ctx, ref)
	if err != nil || object == nil {
		return enforcement.Result{}, false, err
	}
	err = json.Unmarshal([]byte(object.GetAnnotations()[render.EnforcementAnnotation]), &known)
	if err != nil || !known.Current(r.now()) {
		return enforcement.Result{}, true, nil
	}
	return known, true, nil
}

// noteEnforcement keeps the verdict for the next time.
func (r *Reconciler) noteEnforcement(ctx context.Context, ref plan.Ref, result enforcement.Result) error {
	value, err := json.Marshal(result)
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{render.EnforcementAnnotation: string(value)}}})
	if err != nil {
		return err
	}
	_, err = r.resource(ref).Patch(ctx, ref.Name, types.MergePatchType, body, metav1.PatchOptions{FieldManager: enforcementManager})
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) { // the next one has to find out again
		return nil
	}
	return failure.From(err, about(ref))
}
