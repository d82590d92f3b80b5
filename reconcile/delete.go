package reconcile

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/plan"
)

// goneTimeout bounds the wait for a deleted object to go: the grace period of
// a pod, and time for what finalizers do; of a namespace, what is in it goes
// first, which takes the server minutes where that is thousands of objects.
func goneTimeout(kind string) time.Duration {
	if kind == "Namespace" {
		return 15 * time.Minute
	}
	return 2 * time.Minute
}

// delete deletes the very object that the plan saw. One that is gone already is
// as it should be.
func (r *Reconciler) delete(ctx context.Context, change plan.Change) error {
	return r.onSeen(ctx, change, func(change plan.Change) error { return r.deleteOnce(ctx, change) })
}

// deleteOnce deletes an object that nobody has written to since; else the error
// is the server's conflict.
func (r *Reconciler) deleteOnce(ctx context.Context, change plan.Change) error {
	err := r.resource(change.Ref).Delete(ctx, change.Ref.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &change.UID, ResourceVersion: &change.ResourceVersion},
	})
	if apierrors.IsNotFound(err) {
		err = nil
	}
	if err == nil {
		r.deleting(change)
	}
	return err
}

// deleting tells that an object was told to go, or has gone: a cache may still
// show it.
func (r *Reconciler) deleting(change plan.Change) {
	if r.writes != nil {
		r.writes.Deleting(change.Ref, change.UID)
	}
}

// deleteAndWait deletes an object and waits by watch until it is gone, so that
// another can take its name. That it was told to go is recorded at once: it goes
// also where the wait for it ends before.
func (r *Reconciler) deleteAndWait(ctx context.Context, change plan.Change) error {
	change.Action, change.Desired = plan.Delete, nil // of a replacement, it is the first half
	interrupted, timeout := ctx, goneTimeout(change.Ref.Kind)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for deleted := false; ctx.Err() == nil; {
		pause := time.After(watchPause) // see WaitReady
		list, err := r.resource(change.Ref).List(ctx, named(change.Ref, ""))
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			return failure.From(err, about(change.Ref))
		}
		if len(list.Items) == 0 || deleted && list.Items[0].GetUID() != change.UID {
			return nil
		}
		if !deleted {
			if _, err := r.audited(change, func() (plan.Change, error) { return r.makeChange(ctx, change) }); err != nil {
				return err
			}
			deleted = true
		}
		if gone, err := r.watchGoing(ctx, change.Ref, list.GetResourceVersion()); gone || err != nil {
			return err
		}
		<-pause
	}
	if interrupted.Err() != nil {
		return context.Cause(interrupted)
	}
	return failure.New(failure.PodDeletionFailed, about(change.Ref), "%s was deleted, but is still there after %s", change, timeout).
		WithHint("a finalizer may hold it: look at its metadata.finalizers")
}

// watchGoing watches an object from resourceVersion on until it is gone, or the
// watch ends.
func (r *Reconciler) watchGoing(ctx context.Context, ref plan.Ref, resourceVersion string) (gone bool, err error) {
	events, err := r.resource(ref).Watch(ctx, named(ref, resourceVersion))
	if err != nil {
		return false, failure.From(err, about(ref))
	}
	defer events.Stop()
	for event := range events.ResultChan() {
		switch event.Type {
		case watch.Deleted:
			return true, nil
		case watch.Error:
			return false, nil // the list that follows says more
		}
	}
	return false, nil
}

// named selects one object, from resourceVersion on.
func named(ref plan.Ref, resourceVersion string) metav1.ListOptions {
	return metav1.ListOptions{
		FieldSelector:   fields.OneTermEqualSelector(metav1.ObjectNameField, ref.Name).String(),
		ResourceVersion: resourceVersion,
	}
}
