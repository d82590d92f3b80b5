package reconcile

import (
	"context"
	"reflect"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/render"
)

// A quota is enforced by its status, which a controller writes some time after
// the quota itself, or what counts against it, has changed. What follows waits
// for that controller, so that nobody is refused for its sake.

// quotaTimeout bounds the wait: where the controller is slower, the server's
// refusal is the answer.
const quotaTimeout = 15 * time.Second

// quotasCounted waits until the quotas among the changes are in force.
func (r *Reconciler) quotasCounted(ctx context.Context, changes []plan.Change) error {
	for _, change := range changes {
		if change.Ref.Kind != "ResourceQuota" || change.Action == plan.Delete {
			continue
		}
		if err := r.watchQuotas(ctx, change.Ref, func(quota *unstructured.Unstructured) (bool, error) {
			wanted, _, _ := unstructured.NestedMap(quota.Object, "spec", "hard")
			inForce, _, _ := unstructured.NestedMap(quota.Object, "status", "hard")
			used, _, _ := unstructured.NestedMap(quota.Object, "status", "used")
			return quota.GetName() == change.Ref.Name && reflect.DeepEqual(wanted, inForce) && len(used) == len(wanted), nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// createInQuota creates an object, and tries again where a quota refuses it
// that has not yet counted what this very apply has freed or changed.
func (r *Reconciler) createInQuota(ctx context.Context, change plan.Change) error {
	err := r.create(ctx, change)
	if !uncounted(change, err) {
		return err
	}
	ref := plan.Ref{GroupVersionKind: change.Ref.GroupVersion().WithKind("ResourceQuota"), Namespace: change.Ref.Namespace}
	watchErr := r.watchQuotas(ctx, ref, func(*unstructured.Unstructured) (bool, error) {
		err = r.create(ctx, change)
		return !uncounted(change, err), nil
	})
	if watchErr != nil {
		return watchErr
	}
	return err
}

// uncounted tells whether an error is a quota's that may be behind: it has no
// status yet, or still counts the object that was just deleted.
func uncounted(change plan.Change, err error) bool {
	if err == nil || render.WaveOf(change.Ref.GroupVersionKind) <= render.RulesWave {
		return false
	}
	return strings.Contains(err.Error(), "status unknown for quota") ||
		change.Action == plan.Replace && failure.CodeOf(err) == failure.InsufficientResources
}

// watchQuotas calls done with each quota of the namespace, as it is and as it
// changes, until it returns true or an error, or the time is over.
func (r *Reconciler) watchQuotas(ctx context.Context, ref plan.Ref, done func(*unstructured.Unstructured) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, quotaTimeout)
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
		if over, err := done(quota); over || err != nil {
			return err
		}
	}
	return nil
}
