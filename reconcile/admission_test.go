package reconcile

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/plan"
)

// TestAdmitted: a refusal by a rule that may be behind is none until the time is
// over; any other is one at once.
func TestAdmitted(t *testing.T) {
	const pod, limits = "Pod", "LimitRange"
	limited := failure.New(failure.AdmissionRefused, failure.Object{}, "maximum cpu usage per Container is 1, but limit is 2")
	policy := failure.New(failure.AdmissionRefused, failure.Object{}, "not wanted here").With("by", "policy p")
	uncounted := failure.New(failure.AdmissionRefused, failure.Object{}, "status unknown for quota: q")
	full := failure.New(failure.InsufficientResources, failure.Object{}, "no room").With("quota", "q")
	tests := map[string]struct {
		kind   string
		action plan.Action
		rules  []string // what this apply changes
		err    error
		again  bool
	}{
		"a rule of this apply":            {pod, plan.Create, []string{limits}, limited, true},
		"a resize by a rule of this":      {pod, plan.Update, []string{limits}, limited, true},
		"another's rule":                  {pod, plan.Create, []string{"ResourceQuota"}, limited, false},
		"a policy says so":                {pod, plan.Create, []string{limits}, policy, false},
		"a new quota":                     {pod, plan.Create, nil, uncounted, true},
		"a quota that counts the old one": {pod, plan.Replace, nil, full, true},
		"a full quota":                    {pod, plan.Create, []string{limits}, full, false},
		"a quota of this apply":           {pod, plan.Create, []string{"ResourceQuota"}, full, true},
		"a rule itself":                   {limits, plan.Create, []string{"ResourceQuota"}, full, false},
		"no answer":                       {pod, plan.Create, []string{limits}, errors.New("refused"), false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &Reconciler{rules: plan.Rules{}}
				for _, rule := range test.rules {
					r.rules[rule] = true
				}
				change := plan.Change{Ref: plan.Ref{GroupVersionKind: corev1.SchemeGroupVersion.WithKind(test.kind)}, Action: test.action}
				times, begun := 0, time.Now()
				if err := r.admitted(t.Context(), change, func() error { times++; return test.err }); !errors.Is(err, test.err) {
					t.Errorf("it failed with %v", err)
				}
				if waited := time.Since(begun) == admissionTimeout; waited != test.again || times > 1 != test.again {
					t.Errorf("written %d times in %s", times, time.Since(begun))
				}
				times = 0
				err := r.admitted(t.Context(), change, func() error {
					if times++; times == 3 {
						return nil
					}
					return test.err
				})
				if (err == nil) != test.again {
					t.Errorf("written %d times, and then %v", times, err)
				}
			})
		})
	}
}
