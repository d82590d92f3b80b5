package watch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/reconcile"
	"github.com/agentpane/sandboxctl/reconcile/claim"
	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/reconcile/pool"
	"github.com/agentpane/sandboxctl/render"
)

// outcome is what working on a scope came to.
type outcome struct {
	acted bool
	// left: it differs, and is left alone.
	left bool
	// after: the scope is to be looked at again then, though nothing changes.
	after time.Duration
	err   error
}

// lockRetry is how long a scope waits where somebody else has the fleet's lock.
const lockRetry = 2 * time.Second

// work brings one scope to what the file says.
func (w *Watcher) work(ctx context.Context, scope string) (done outcome) {
	want := w.current()
	seen := w.mirror.scope(scope)
	if want.hasGateway && seen.Gateway == nil || scope == fleetScope && len(want.fleet.Sandboxes) == 0 { // else nobody asks, and there may be thousands
		seen.Inhabitants = w.mirror.inhabitants()
	}
	handsOff := w.handsOff(want, seen)
	if !handsOff && !w.mayWork(scope) {
		return outcome{} // the fleet's scope will have it looked at again
	}
	w.noteGoing(scope, seen)
	if scope == poolsScope {
		w.tellPools(want, seen)
	}
	options := w.planOptions(scope)
	defer func() { w.planned(scope, options, done) }()
	p, err := w.reconciler.PlanFrom(ctx, want.fleet, seen, staying(want.scopes[scope], seen), options)
	if err != nil {
		return outcome{err: err}
	}
	w.sift(scope, &p)
	p, refused := p.WithoutRefusedPools()
	done = w.bring(ctx, scope, want, seen, p, handsOff)
	if len(refused) > 0 {
		done.err = errors.Join(done.err, blockedError(refused))
	}
	return done
}

// bring does what the plan of a scope says, as far as it may.
func (w *Watcher) bring(ctx context.Context, scope string, want *wanted, seen reconcile.Observation, p plan.Plan, handsOff bool) outcome {
	if scope == fleetScope && slices.ContainsFunc(p.Changes, func(c plan.Change) bool { return c.Action != plan.Delete && isRule(c.Ref) }) {
		w.mutex.Lock()
		w.stands = false
		w.mutex.Unlock()
	}
	if blocked := p.Blocked(); len(blocked) > 0 {
		return outcome{err: blockedError(blocked)}
	}
	if len(p.Active) > 0 {
		if err := w.noteActivity(ctx, scope, want, seen, p); err != nil {
			return outcome{err: err}
		}
	}
	if handsOff {
		w.tellDrift(scope, p)
		w.tellSessions(scope, p)
		if len(p.Changes)+len(p.Pools) > 0 || slices.ContainsFunc(p.Sessions, func(s plan.Sessions) bool { return !s.Idle() }) {
			return outcome{left: true}
		}
		return w.asWanted(scope, seen, want, p)
	}
	paused, pause := w.drift(scope, seen, &p)
	if len(p.Changes)+len(p.Pools) > 0 {
		return w.apply(ctx, scope, want, p)
	}
	if scope == fleetScope && slices.ContainsFunc(paused, isRule) {
		return outcome{acted: true, after: pause} // no pod may start while that is not as it should be
	}
	done := w.sessions(ctx, scope, seen, want, p)
	if pause > 0 {
		done.left, done.after = true, sooner(done.after, pause)
	}
	return done
}

// isRule tells whether an object of the fleet says what its pods may do, or what
// its gateway lets through: none may start while that is not as it should be.
func isRule(ref plan.Ref) bool {
	return slices.Contains([]string{"Namespace", "NetworkPolicy", "CiliumNetworkPolicy", "ConfigMap"}, ref.Kind)
}

// sooner is the sooner of two times, of which 0 is never.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return a + b
	}
	return min(a, b)
}

// mayWork tells whether a scope can be worked on: a sandbox only while the
// rules that it lives under stand.
func (w *Watcher) mayWork(scope string) bool {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if scope == fleetScope || w.stands {
		return true
	}
	w.awaiting[scope] = true
	return false
}

// noteGoing notes whether something of the scope is on its way out.
func (w *Watcher) noteGoing(scope string, seen reconcile.Observation) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	delete(w.going, scope)
	for _, live := range seen.Live {
		if live.GetDeletionTimestamp() != nil {
			w.going[scope], w.unsettled = true, true
		}
	}
}

// staying leaves out what is on its way out in the cluster: it is made anew
// when it has gone, which is told. A sandbox whose pod goes gets no other
// before that, whatever the pod's name is, and one whose volume goes gets none.
func staying(objects []render.Object, seen reconcile.Observation) []render.Object {
	stays, goes := false, false // of the scope's pods
	volumeGoes := false
	for ref, live := range seen.Live {
		going := live.GetDeletionTimestamp() != nil
		switch ref.Kind {
		case "Pod":
			stays, goes = stays || !going, goes || going
		case "PersistentVolumeClaim":
			volumeGoes = volumeGoes || going
		}
	}
	return slices.DeleteFunc(slices.Clone(objects), func(object render.Object) bool {
		live := seen.Live[plan.RefOf(object.Object)]
		return live != nil && live.GetDeletionTimestamp() != nil || object.Object.GetKind() == "Pod" && !stays && (goes || volumeGoes)
	})
}

// sift makes of a scope's plan what can be done now without waiting: of a
// replacement its first half, as the second follows when the old object has
// gone; no allowlist goes while a pod is still under it; and the sessions of a
// container that does not run yet follow when it does.
func (w *Watcher) sift(scope string, p *plan.Plan) {
	p.Changes = slices.DeleteFunc(p.Changes, func(change plan.Change) bool {
		id, isAllowlist := render.AllowlistID(change.Ref.Name)
		return scope == fleetScope && change.Action == plan.Delete && isAllowlist && w.mirror.allowlistInUse(id)
	})
	p.Sessions = slices.DeleteFunc(p.Sessions, func(s plan.Sessions) bool { return s.Pod == "" && s.Problem == nil })
	for i := range p.Changes {
		if change := &p.Changes[i]; change.Action == plan.Replace && !change.Blocked() {
			change.Action, change.Desired, change.Adopt = plan.Delete, nil, nil
		}
	}
}

// asWanted notes that a scope is as the file says.
func (w *Watcher) asWanted(scope string, seen reconcile.Observation, want *wanted, p plan.Plan) outcome {
	if !slices.ContainsFunc(p.Active, func(a plan.Activity) bool { return a.Problem != nil }) {
		w.said.forget(scope)
	}
	w.mutex.Lock()
	var released []string
	if w.want == want {
		delete(w.fresh, scope)
		if scope == fleetScope && !w.stands && !w.open[fleetScope] { // else it has changed since the look
			w.stands = true
			for name := range w.awaiting {
				released = append(released, name)
				w.open[name] = true
			}
			clear(w.awaiting)
		}
	}
	w.mutex.Unlock()
	for _, name := range released {
		w.look(name)
	}
	return outcome{after: w.due(scope, seen, want, p)}
}

// due is when a scope is to be looked at again although nothing changes: when a
// claim runs out, when a sandbox could be idle, and as often as the file says
// for a pool.
func (w *Watcher) due(scope string, seen reconcile.Observation, want *wanted, p plan.Plan) (after time.Duration) {
	if scope == poolsScope {
		for _, p := range want.fleet.Pools {
			after = sooner(after, p.Replenish.Duration)
		}
		return after
	}
	if scope == fleetScope {
		return after
	}
	if next := (plan.IdleInput{Fleet: want.of(scope), Live: seen.Live, Now: w.now()}).Next(p.Active); !next.IsZero() {
		after = max(next.Sub(w.now()), 0) + time.Millisecond
	}
	for _, live := range seen.Live {
		if pod, ok := pool.Read(live); ok && pod.Claim != nil && !pod.Claim.Until.IsZero() {
			after = sooner(after, max(pod.Claim.Until.Sub(w.now()), 0)+time.Second) // it counts as over only then
		}
	}
	return after
}

// handsOff tells whether what differs is only to be told.
func (w *Watcher) handsOff(want *wanted, seen reconcile.Observation) bool {
	return w.options.Detect || want.fleet.Suspend || isSuspended(seen)
}

// isSuspended tells whether one of the scope's objects, or the fleet's
// namespace, asks by an annotation to be left alone.
func isSuspended(seen reconcile.Observation) bool {
	for _, live := range seen.Live {
		if Suspends(live) {
			return true
		}
	}
	return Suspends(seen.Namespace)
}

// Suspends tells whether an object, which may be nil, has the annotation. It
// reads that one as it stands: GetAnnotations copies all, of each of many
// thousands.
func Suspends(object *unstructured.Unstructured) bool {
	if object == nil {
		return false
	}
	value, _, _ := unstructured.NestedString(object.Object, "metadata", "annotations", SuspendAnnotation)
	return value == "true"
}

// SuspendAnnotation on a sandbox's pod, or on the namespace, has the watcher
// report what it would do and do none of it, while its value is "true".
const SuspendAnnotation = "agentpane.io/suspend"

// apply does what the plan says, under the fleet's lock.
func (w *Watcher) apply(ctx context.Context, scope string, want *wanted, p plan.Plan) outcome {
	if len(p.Changes) > 0 && p.Changes[0].Ref.Kind == "Namespace" && p.Changes[0].Action == plan.Create { // the lock stands in it
		first := p
		first.Changes = p.Changes[:1]
		if _, err := w.reconciler.ApplyLocked(ctx, want.fleet, first, w.step(scope)); err != nil {
			return outcome{err: err}
		}
		p.Changes = p.Changes[1:]
	}
	locked, done, err := w.lock.hold(ctx)
	if failure.CodeOf(err) == failure.FleetLocked {
		if w.said.first(scope, err.Error()) {
			w.tell(Event{Type: Waiting, Scope: scope, Err: err})
		}
		return outcome{acted: true, after: lockRetry}
	}
	if err != nil {
		return outcome{err: err}
	}
	defer done()
	for _, level := range p.Pools {
		if text := levelText(level); w.said.first(scope, level.Name+text) { // it may have to be tried more than once
			w.tell(Event{Type: PoolChanged, Pool: level.Name, Message: text})
		}
	}
	_, err = w.reconciler.ApplyLocked(locked, want.fleet, p, w.step(scope))
	if slices.ContainsFunc(p.Changes, func(change plan.Change) bool { return change.Adopt != nil }) {
		w.look(poolsScope) // a pool has a warm pod less, whenever that is seen
	}
	if failure.CodeOf(err) == failure.PlanStale { // the cache was behind somebody else's write
		return outcome{acted: true, after: firstRetry}
	}
	if err != nil {
		return outcome{err: err}
	}
	w.mutex.Lock()
	if w.want == want { // else the file says something else by now
		delete(w.fresh, scope)
	}
	w.mutex.Unlock()
	w.look(scope) // from the mirror, at no cost: it must be as wanted now
	if scope != fleetScope {
		w.look(fleetScope) // an allowlist may be unused now
	}
	return outcome{acted: true, after: claim.WriteMemory + time.Second} // if what was written has gone meanwhile, unseen
}

// step passes on what an apply does, and counts what it corrects, also where
// somebody else is faster again.
func (w *Watcher) step(scope string) func(reconcile.Event) {
	fresh := w.isFresh(scope)
	return func(event reconcile.Event) {
		change := event.Change
		done, late := event.Phase == reconcile.Done, event.Phase == reconcile.Failed && failure.CodeOf(event.Err) == failure.PlanStale
		again := change.Action == plan.Update || change.Disruption == plan.Replaces
		if (done || late) && again && !fresh && !isOrdered(scope, change) {
			w.flaps.corrected(change.Ref)
		}
		if !done {
			return
		}
		w.tell(Event{Type: Changed, Scope: scope, Ref: change.Ref, UID: change.UID, Action: change.Action, Message: change.Reason})
	}
}

// blockedError says why the changes cannot be made.
func blockedError(blocked []plan.Change) error {
	var errs []error
	for _, change := range blocked {
		if change.Problem != nil {
			errs = append(errs, change.Problem)
			continue
		}
		for _, conflict := range change.Conflicts {
			errs = append(errs, fmt.Errorf("%s: %s is owned by %s, and is left to it", change.Ref, conflict.Field, conflict.Manager))
		}
	}
	return errors.Join(errs...)
}
