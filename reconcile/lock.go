package reconcile

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	k8sschema "k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// The lock is an annotation of the fleet's parent object, which says who
// changes the fleet, and until when that is to be believed. It is renewed while
// the work goes on, so that a crash does not lock the fleet for long.
const (
	lockRenewal = LockTerm / 3
	// lockRetry is the pause before a lock that somebody else has is tried again,
	// renewalRetry the one before the renewal is, releaseRetry the first one
	// before giving back is.
	lockRetry    = time.Second
	renewalRetry = time.Second
	releaseRetry = 100 * time.Millisecond
)

// LockTerm is for how long the lock of a process that was killed stays.
const LockTerm = 30 * time.Second

// lock is the value of the annotation.
type lock struct {
	Holder string    `json:"holder"`
	Until  time.Time `json:"until"`
}

// ownLock is what a reconciler remembers of its lock: where an answer was lost,
// the lock that it finds later can be its own.
type ownLock struct {
	mutex   sync.Mutex // protects the rest
	written string     // the annotation as it was last written, or tried to be
	held    bool
}

func (o *ownLock) set(held bool) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	o.held = held
}

func (o *ownLock) write(value string) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	o.written = value
}

// left tells whether that lock is one that this reconciler has left behind.
func (o *ownLock) left(value string) bool {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	return !o.held && value != "" && value == o.written
}

// awaitLock is Lock for whoever may wait, and tells whether it did.
func (r *Reconciler) awaitLock(ctx context.Context, fleet *schema.Fleet) (locked context.Context, release func() error, waited bool, err error) {
	over := time.After(r.lockTimeout)
	for {
		locked, release, err = r.Lock(ctx, fleet)
		if failure.CodeOf(err) != failure.FleetLocked || r.lockTimeout <= 0 {
			return locked, release, waited, err
		}
		if !waited {
			r.locked(err)
		}
		waited = true
		select {
		case <-ctx.Done():
			return nil, nil, waited, context.Cause(ctx)
		case <-over:
			return nil, nil, waited, err
		case <-time.After(lockRetry):
		}
	}
}

// Lock takes the fleet's lock, and makes its parent object where there is none.
// The context that it returns ends when the lock is lost; release must be
// called, and waits for what Lock has started. The error is FleetLocked where
// somebody else has it.
func (r *Reconciler) Lock(ctx context.Context, fleet *schema.Fleet) (locked context.Context, release func() error, err error) {
	parent := render.Parent(fleet, groupKinds(fleet))
	ref := plan.RefOf(parent)
	current, err := r.get(ctx, ref)
	if err != nil {
		return nil, nil, err
	}
	if current == nil {
		r.setLock(parent)
		current, err = r.resource(ref).Create(ctx, parent, metav1.CreateOptions{FieldManager: render.Manager})
	} else {
		if held := lockOf(current); r.keepsOut(current, held) {
			return nil, nil, lockedBy(fleet, held)
		}
		r.setLock(current)
		annotations := current.GetAnnotations()
		annotations[render.GroupKindsKey] = parent.GetAnnotations()[render.GroupKindsKey] // an older version knew fewer
		current.SetAnnotations(annotations)
		current, err = r.annotate(context.WithoutCancel(ctx), ref, current) // begun, it is finished
	}
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		return nil, nil, lockedBy(fleet, lock{Holder: "somebody who was a moment faster", Until: r.now().Add(LockTerm)})
	}
	if err != nil {
		return nil, nil, failure.From(err, about(ref))
	}
	return r.keepLock(ctx, ref, current)
}

// keepsOut tells whether the lock that stands in parent is one to respect.
func (r *Reconciler) keepsOut(parent *unstructured.Unstructured, held lock) bool {
	return held.Holder != "" && r.now().Before(held.Until) && !r.own.left(parent.GetAnnotations()[render.LockAnnotation])
}

// lockedBy is the failure of whoever finds the fleet locked.
func lockedBy(fleet *schema.Fleet, held lock) error {
	return failure.New(failure.FleetLocked, failure.Object{Kind: "fleet", Namespace: fleet.Namespace, Name: fleet.Name},
		"fleet %s is being changed by %s", fleet.Name, held.Holder).
		WithHint("wait until that is done; where it was killed, the lock ends by itself at %s", held.Until.Format(time.RFC3339))
}

// groupKinds are the kinds that a fleet's objects can be of.
func groupKinds(fleet *schema.Fleet) []k8sschema.GroupKind {
	var kinds []k8sschema.GroupKind
	for _, kind := range render.KindsOf(fleet) {
		kinds = append(kinds, kind.Kind.GroupKind())
	}
	return kinds
}

// keepLock renews the lock until release is called.
func (r *Reconciler) keepLock(ctx context.Context, ref plan.Ref, parent *unstructured.Unstructured) (context.Context, func() error, error) {
	locked, lost := context.WithCancelCause(ctx)
	stop := make(chan struct{})
	var renewing sync.WaitGroup
	renewing.Go(func() {
		renewal := time.NewTicker(lockRenewal)
		defer renewal.Stop()
		for {
			select {
			case <-stop:
				return
			case <-renewal.C:
				renewed, err := r.renew(ref, parent, stop)
				if err != nil {
					lost(fmt.Errorf("the fleet's lock was lost: %w", failure.From(err, about(ref))))
					return
				}
				parent = renewed
			}
		}
	})
	r.own.set(true)
	release := func() error {
		close(stop)
		renewing.Wait()
		lost(nil)
		r.own.set(false)
		if err := r.giveBack(ref, parent); err != nil {
			return fmt.Errorf("releasing the fleet's lock, which ends by itself in %s: %w", LockTerm, err)
		}
		return nil
	}
	return locked, release, nil
}

// renew has the lock that stands in parent last for another term. One failure is
// not its loss: it is tried again for as long as the lock lasts, unless somebody
// else has it by then, or stop is closed.
func (r *Reconciler) renew(ref plan.Ref, parent *unstructured.Unstructured, stop <-chan struct{}) (*unstructured.Unstructured, error) {
	ctx, cancel := context.WithTimeout(context.Background(), LockTerm-lockRenewal)
	defer cancel()
	ours := map[string]bool{}
	for {
		ours[parent.GetAnnotations()[render.LockAnnotation]] = true
		r.setLock(parent)
		ours[parent.GetAnnotations()[render.LockAnnotation]] = true
		renewed, err := r.annotate(ctx, ref, parent)
		if err == nil {
			return renewed, nil
		}
		select {
		case <-stop:
			return parent, nil
		case <-ctx.Done():
			return nil, err
		case <-time.After(renewalRetry):
		}
		current, getErr := r.get(ctx, ref)
		if getErr != nil {
			continue
		}
		if current == nil || !ours[current.GetAnnotations()[render.LockAnnotation]] {
			return nil, err
		}
		parent = current
	}
}

// giveBack removes the lock from parent. It tries again for a while: a lock that
// stays keeps everybody out until it ends.
func (r *Reconciler) giveBack(ref plan.Ref, parent *unstructured.Unstructured) error {
	ctx, cancel := context.WithTimeout(context.Background(), lockRenewal)
	defer cancel()
	for pause := releaseRetry; ; pause *= 2 {
		annotations := parent.GetAnnotations()
		delete(annotations, render.LockAnnotation)
		parent.SetAnnotations(annotations)
		_, err := r.annotate(ctx, ref, parent)
		if err == nil || apierrors.IsNotFound(err) {
			return nil
		}
		select {
		case <-ctx.Done():
			return failure.From(err, about(ref))
		case <-time.After(pause):
		}
		current, errGet := r.get(ctx, ref)
		if errGet != nil {
			continue
		}
		if current == nil || !r.own.left(current.GetAnnotations()[render.LockAnnotation]) {
			return nil // done, though the answer was lost
		}
		parent = current
	}
}

// annotate writes the lock and the kinds as they stand in parent, provided that
// nobody wrote the parent since it was read.
func (r *Reconciler) annotate(ctx context.Context, ref plan.Ref, parent *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	ctx, cancel := context.WithTimeout(ctx, lockRenewal)
	defer cancel()
	var value any // null removes it
	if held, ok := parent.GetAnnotations()[render.LockAnnotation]; ok {
		value = held
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"resourceVersion": parent.GetResourceVersion(),
		"annotations": map[string]any{
			render.LockAnnotation: value, render.GroupKindsKey: parent.GetAnnotations()[render.GroupKindsKey],
		},
	}})
	if err != nil {
		return nil, err
	}
	return r.resource(ref).Patch(ctx, ref.Name, types.MergePatchType, body, metav1.PatchOptions{FieldManager: render.Manager})
}

func (r *Reconciler) setLock(parent *unstructured.Unstructured) {
	value, err := json.Marshal(lock{Holder: r.holder, Until: r.now().Add(LockTerm).UTC()})
	if err != nil {
		panic(err) // of a string and a time
	}
	annotations := parent.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[render.LockAnnotation] = string(value)
	r.own.write(string(value))
	parent.SetAnnotations(annotations)
}

// lockOf is the lock that stands in parent; the zero value where there is none,
// or none that can be read.
func lockOf(parent *unstructured.Unstructured) lock {
	var held lock
	if err := json.Unmarshal([]byte(parent.GetAnnotations()[render.LockAnnotation]), &held); err != nil {
		return lock{}
	}
	return held
}
