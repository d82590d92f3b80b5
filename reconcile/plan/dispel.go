package plan

import (
	"errors"

	"github.com/agentpane/sandboxctl/reconcile/failure"
)

// dispel takes back the server's refusals that rest on a rule which this very
// plan changes before it comes to the refused object: the server judges by the
// rule as it still stands. Where the new rule refuses as well, applying says so.
func dispel(plan *Plan) {
	changed := map[string]bool{}
	for _, change := range plan.Changes {
		if !change.Blocked() && change.Unvalidated == "" {
			changed[change.Ref.Kind] = true
		}
	}
	for i := range plan.Changes {
		change := &plan.Changes[i]
		refusal, ok := errors.AsType[*failure.Error](change.Problem)
		if !ok || len(change.Conflicts) > 0 && !change.Force {
			continue
		}
		if rule := ruleBehind(refusal); rule != "" && changed[rule] {
			change.Problem = nil
			change.Unvalidated = "the server would refuse it now, by a " + rule + " that changes first: " + refusal.Message
		}
	}
}

// ruleBehind is the kind of object that a refusal rests on; empty where it is
// none that a fleet has.
func ruleBehind(refusal *failure.Error) string {
	switch {
	case refusal.Code == failure.InsufficientResources && refusal.Details["quota"] != nil:
		return "ResourceQuota"
	case refusal.Code == failure.PodSecurityViolation:
		return "Namespace"
	case refusal.Code == failure.AdmissionRefused && refusal.Details["by"] == nil: // a LimitRange does not say its name
		return "LimitRange"
	}
	return ""
}
