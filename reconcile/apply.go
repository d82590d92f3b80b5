package reconcile

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/reconcile/claim"
	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// requestTimeout bounds a request that is finished after an interrupt.
const requestTimeout = 30 * time.Second

// Event is something that happened while a plan was applied.
type Event struct {
	Change plan.Change
	// Phase is how far the change is.
	Phase Phase
	// Message adds to it, as why a pod is not ready yet.
	Message string
	Err     error
}

// Phase is a step in the life of a change.
type Phase string

// The phases: Done is the server's word, Ready the pod's.
const (
	Started Phase = "started"
	Done    Phase = "done"
	Waiting Phase = "waiting"
	Ready   Phase = "ready"
	Failed  Phase = "failed"
)

// Result is what applying a plan came to.
type Result struct {
	// Done are the changes that were made, Left those that were not begun.
	Done, Left []plan.Change
	// Pooled are the pods of pools that were made or deleted.
	Pooled []plan.Change
}

// Apply does what the plan says, in waves: what protects a pod stands before
// the pod does, and where a wave fails, the next one does not begin. It tells
// each step to tell, which may be called from several goroutines at once. When
// ctx ends, it finishes what is under way, and the result says what is left.
// The plan must not be blocked. Of two applies of a fleet at once, one waits as
// WithLockTimeout says, and fails before it changes anything where the plan does
// not fit any more then.
func (r *Reconciler) Apply(ctx context.Context, fleet *schema.Fleet, p plan.Plan, tell func(Event)) (result Result, err error) {
	r = r.of(fleet)
	rest := p.Changes
	defer func() { result.Left = left(p.Changes, result.Done) }()
	if len(rest) > 0 && rest[0].Ref.Kind == "Namespace" && rest[0].Action == plan.Create { // the lock stands in it
		result.Done, err = r.applyWave(ctx, rest[:1], tell, r.applyChange)
		if err != nil {
			return result, err
		}
		rest = rest[1:]
	}
	ctx, release, waited, err := r.awaitLock(ctx, fleet)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, release()) }()
	if waited { // who had it may have changed anything
		if err := r.CheckFresh(ctx, plan.Plan{Fleet: p.Fleet, Namespace: p.Namespace, Changes: rest}); err != nil {
			return result, err
		}
	}
	if err := r.checkAllowlists(ctx, fleet, p); err != nil {
		return result, err
	}
	err = r.applyWaves(ctx, fleet, p, rest, &result, tell)
	return result, err
}

// ApplyLocked is Apply for whoever holds the fleet's lock already.
func (r *Reconciler) ApplyLocked(ctx context.Context, fleet *schema.Fleet, p plan.Plan, tell func(Event)) (result Result, err error) {
	err = r.of(fleet).applyWaves(ctx, fleet, p, p.Changes, &result, tell)
	result.Left = left(p.Changes, result.Done)
	return result, err
}

// applyWaves makes the changes and then the pools' levels, and notes in result
// what was done.
func (r *Reconciler) applyWaves(ctx context.Context, fleet *schema.Fleet, p plan.Plan, changes []plan.Change, result *Result, tell func(Event)) error {
	r.rules = p.Rules() // of its own: see of
	claims, err := r.claims(p)
	if err != nil {
		return err
	}
	if err := r.foldClaims(ctx, claims, p.Fleet, changes); err != nil {
		return err
	}
	apply := func(ctx context.Context, change plan.Change) (plan.Change, error) {
		if change.Adopt != nil && change.Action != plan.Delete {
			return r.applyAdoption(ctx, claims, change)
		}
		return r.applyChange(ctx, change)
	}
	for wave := range waves(changes) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := r.vacate(ctx, wave, changes); err != nil {
			return err
		}
		if err := r.ensureEnforced(ctx, fleet, wave); err != nil {
			return err
		}
		wave, err := r.withGateway(ctx, fleet, wave)
		if err != nil {
			return err
		}
		done, err := r.applyWave(ctx, wave, tell, apply)
		result.Done = append(result.Done, done...)
		if err != nil {
			return err
		}
		if err := r.quotasCounted(ctx, done); err != nil {
			return err
		}
	}
	return cmp.Or(r.applyLevels(ctx, fleet, claims, p.Pools, result, tell), context.Cause(ctx))
}

// applyLevels brings pools to their levels, and notes in result what was done.
// The failure of one keeps no other from its own.
func (r *Reconciler) applyLevels(ctx context.Context, fleet *schema.Fleet, claims *claim.Client, levels []plan.PoolLevel, result *Result, tell func(Event)) error {
	var errs []error
	for _, level := range levels {
		done, err := r.applyLevel(ctx, fleet, claims, level, tell)
		result.Pooled = append(result.Pooled, done...)
		errs = append(errs, err)
		if ctx.Err() != nil || failure.CodeOf(err) == failure.ClusterUnreachable {
			break
		}
	}
	return errors.Join(errs...)
}

// left are the changes that are not among those that were done.
func left(all, done []plan.Change) []plan.Change {
	var rest []plan.Change
	for _, change := range all {
		if !slices.ContainsFunc(done, func(d plan.Change) bool { return d.Ref == change.Ref }) {
			rest = append(rest, change)
		}
	}
	return rest
}

// waves splits changes, which are in order, where the wave or the kind of
// action changes.
func waves(changes []plan.Change) func(yield func([]plan.Change) bool) {
	key := func(c plan.Change) [2]int {
		deletion := 0
		if c.Action == plan.Delete {
			deletion = 1
		}
		return [2]int{deletion, int(render.WaveOf(c.Ref.GroupVersionKind))}
	}
	return func(yield func([]plan.Change) bool) {
		for start := 0; start < len(changes); {
			end := start + 1
			for end < len(changes) && key(changes[end]) == key(changes[start]) {
				end++
			}
			if !yield(changes[start:end]) {
				return
			}
			start = end
		}
	}
}

// applyWave makes the changes at once, and waits for the pods among them. The
// failure of one does not stop its neighbours. What apply leaves untouched is
// not done.
func (r *Reconciler) applyWave(ctx context.Context, changes []plan.Change, tell func(Event), apply func(context.Context, plan.Change) (plan.Change, error)) ([]plan.Change, error) {
	var (
		mutex sync.Mutex // protects done and failed
		done  []plan.Change
		fails []error
		// unreachable: each further change would wait as long, for nothing.
		unreachable atomic.Bool
	)
	group := new(errgroup.Group)
	group.SetLimit(concurrency)
	for _, change := range changes {
		group.Go(func() error {
			if ctx.Err() != nil || unreachable.Load() {
				return nil
			}
			tell(Event{Change: change, Phase: Started})
			change, err := apply(ctx, change)
			mutex.Lock()
			defer mutex.Unlock()
			if errors.Is(err, errUntouched) {
				return nil
			}
			if err != nil {
				if failure.CodeOf(err) == failure.ClusterUnreachable {
					unreachable.Store(true)
				}
				fails = append(fails, err)
				tell(Event{Change: change, Phase: Failed, Err: err})
				return nil
			}
			done = append(done, change)
			tell(Event{Change: change, Phase: Done})
			return nil
		})
	}
	_ = group.Wait() // its functions return no error: all are to be heard
	return done, errors.Join(distinct(fails)...)
}

// distinct are the errors that do not say the same as one before them, as all
// do where the server does not answer.
func distinct(errs []error) []error {
	said := map[string]bool{}
	return slices.DeleteFunc(errs, func(err error) bool {
		text := err.Error()
		defer func() { said[text] = true }()
		return said[text]
	})
}

// applyChange makes and records one change. Once begun, it is finished even when
// ctx ends.
func (r *Reconciler) applyChange(ctx context.Context, change plan.Change) (plan.Change, error) {
	switch {
	case change.Action == plan.Replace:
		return r.applyAdoption(ctx, nil, change)
	case change.Action == plan.Delete && r.patient && (change.Ref.Kind == "Pod" || change.Ref.Kind == "Namespace"): // these take a while to go
		return change, r.deleteAndWait(ctx, change)
	}
	return r.audited(change, func() (plan.Change, error) { return r.makeChange(ctx, change) })
}

func (r *Reconciler) makeChange(ctx context.Context, change plan.Change) (plan.Change, error) {
	request, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	switch change.Action {
	case plan.Delete:
		if !change.IdleSince.IsZero() {
			if err := r.stillIdle(ctx, change); err != nil {
				return change, err
			}
		}
		return change, r.delete(request, change)
	case plan.Create:
		return change, r.admitted(request, change, func() error { return r.create(request, change) })
	default:
		return change, r.admitted(request, change, func() error { return r.update(request, change) })
	}
}

// applyAdoption makes and records a sandbox's new pod, when the old one, if it
// has one, is gone, which is recorded by itself; claims can be nil where that
// cannot come out of a pool.
func (r *Reconciler) applyAdoption(ctx context.Context, claims *claim.Client, change plan.Change) (plan.Change, error) {
	if change.Action == plan.Replace {
		if err := r.deleteAndWait(ctx, change); err != nil {
			return change, err
		}
	}
	return r.audited(change, func() (plan.Change, error) {
		request, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout) // after what may have taken long
		defer cancel()
		return r.start(request, claims, change)
	})
}

// create applies an object that the plan saw nothing of, and refuses to change
// one that is there after all: none has the resourceVersion that is sent.
func (r *Reconciler) create(ctx context.Context, change plan.Change) error {
	ctx, status := withStatus(ctx)
	object := change.Desired.DeepCopy()
	object.SetResourceVersion(claim.NoResourceVersion)
	_, err := r.patch(ctx, object, metav1.PatchOptions{Force: &change.Force})
	if apierrors.IsConflict(err) && len(conflictsOf(err)) == 0 {
		return madeSince(change)
	}
	if err != nil {
		return failure.From(err, about(change.Ref))
	}
	if *status != http.StatusCreated {
		return madeSince(change)
	}
	return nil
}

func madeSince(change plan.Change) error {
	return failure.New(failure.PlanStale, about(change.Ref), "%s was there already when it was to be created: somebody made it since the plan", change)
}

// update applies a change to the very object that the plan saw.
func (r *Reconciler) update(ctx context.Context, change plan.Change) error {
	if change.Resize {
		return r.resize(ctx, change)
	}
	return r.onSeen(ctx, change, func(change plan.Change) error {
		_, err := r.patch(ctx, on(change, change.Desired), metav1.PatchOptions{Force: &change.Force})
		return err
	})
}

// on is the object with the change's precondition.
func on(change plan.Change, object *unstructured.Unstructured) *unstructured.Unstructured {
	object = object.DeepCopy()
	object.SetUID(change.UID)
	object.SetResourceVersion(change.ResourceVersion)
	return object
}
