package reconcile

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/render"
)

// Admission judges by what it knows of the rules, some time after these have
// changed. A quota is enforced by its status, which a controller writes when the
// quota itself, or what counts against it, has changed. What follows waits for
// that, so that nobody is refused for its sake.

// admissionTimeout bounds the wait: where the cluster is slower, the server's
// refusal is the answer.
const admissionTimeout = 15 * time.Second

// quotasCounted waits until the quotas among the changes are in force.
func (r *Reconciler) quotasCounted(ctx context.Context, changes []plan.Change) error {
	for _, change := range changes {
		if change.Ref.Kind != "ResourceQuota" || change.Action == plan.Delete {
			continue
		}
		if err := r.watchQuotas(ctx, change.Ref, func(quota *unstructured.Unstructured) bool {
			wanted, _, _ := unstructured.NestedMap(quota.Object, "spec", "hard")
			inForce, _, _ := unstructured.NestedMap(quota.Object, "status", "hard")
			used, _, _ := unstructured.NestedMap(quota.Object, "status", "used")
			return quota.GetName() == change.Ref.Name && reflect.DeepEqual(wanted, inForce) && len(used) == len(wanted)
		}); err != nil {
			return err
		}
	}
	return nil
}

// admitted writes, and again where admission refuses by a rule that is behind:
// a quota that has not yet counted what this very apply has freed, or a rule as it
// was before this very apply, of which each API server has a copy of its own.
func (r *Reconciler) admitted(ctx context.Context, change plan.Change, write func() error) error {
	ctx, cancel := context.WithTimeout(ctx, admissionTimeout)
	defer cancel()
	pause := wait.Backoff{Duration: 10 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 7}
	for {
		err := write()
		if !r.behind(change, err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause.Step()):
		}
	}
}

// behind tells whether the refusal of a change is by a rule that may be behind.
func (r *Reconciler) behind(change plan.Change, err error) bool {
	refusal, ok := errors.AsType[*failure.Error](err)
	if !ok || render.WaveOf(change.Ref.GroupVersionKind) <= render.RulesWave {
		return false
	}
	return strings.Contains(refusal.Message, "status unknown for quota") ||
		change.Action == plan.Replace && refusal.Code == failure.InsufficientResources ||
		r.rules.Behind(refusal) != ""
}

// watchQuotas calls done with each quota of the namespace, as it is and as it
// changes, until it returns true, or the time is over.
func (r *Reconciler) watchQuotas(ctx context.Context, ref plan.Ref, done func(*unstructured.Unstructured) bool) error {
	ctx, cancel := context.WithTimeout(ctx, admissionTimeout)
	defer cancel()
	events, err := r.resource(ref).Watch(ctx, metav1.ListOptions{}) // begins with those that there are
	if err != nil {
		return failure.From(err, failure.Object{Kind: "resourcequotas", Namespace: ref.Namespace})
	}
	defer events.Stop()
	for event := range events.ResultChan() {
		quota, ok := event.Object.(*unstructured.Unstructured)
		if !ok || quota.GetKind() != "ResourceQuota" {
			continue
		}
		if done(quota) {
			return nil
		}
	}
	return nil
}
