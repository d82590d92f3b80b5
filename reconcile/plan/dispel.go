package plan

import (
	"errors"

	"github.com/agentpane/sandboxctl/reconcile/failure"
)

// dispel takes back the server's refusals of changes that rest on a rule which
// their very plan changes before it comes to the refused object: the server judges
// by the rule as it still stands. Where the new rule refuses as well, applying
// says so.
func (r Rules) dispel(changes []Change) {
	for i := range changes {
		change := &changes[i]
		refusal, ok := errors.AsType[*failure.Error](change.Problem)
		if !ok || len(change.Conflicts) > 0 && !change.Force {
			continue
		}
		if rule := r.Behind(refusal); rule != "" {
			change.Problem = nil
			change.Unvalidated = "the server would refuse it now, by a " + rule + " that changes first: " + refusal.Message
		}
	}
}

// Rules are the kinds of objects that a plan changes, and by which admission may
// judge others.
type Rules map[string]bool

// Rules are those of the plan.
func (p Plan) Rules() Rules {
	changed := Rules{}
	for _, change := range p.Changes {
		if !change.Blocked() && change.Unvalidated == "" {
			changed[change.Ref.Kind] = true
		}
	}
	return changed
}

// Behind is the one that a refusal rests on; empty where it is none of them.
func (r Rules) Behind(refusal *failure.Error) string {
	rule := ""
	switch {
	case refusal.Code == failure.InsufficientResources && refusal.Details["quota"] != nil:
		rule = "ResourceQuota"
	case refusal.Code == failure.PodSecurityViolation:
		rule = "Namespace"
	case refusal.Code == failure.AdmissionRefused && refusal.Details["by"] == nil: // a LimitRange does not say its name
		rule = "LimitRange"
	}
	if !r[rule] {
		return ""
	}
	return rule
}
