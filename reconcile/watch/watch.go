// Package watch keeps a cluster as a fleet's file says. It is the pipeline of
// plan and apply with informers as its eyes: an object that changes, a file
// that was saved, or a timer leads to the very plan that package plan would
// make, of the one sandbox that is concerned, and what that plan says is done.
// While nothing changes it asks the server nothing. The package reads no files
// and never prints: [Watcher.Update] brings what a file says, and events tell
// what happens.
package watch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/workqueue"

	"github.com/agentpane/sandboxctl/reconcile"
	"github.com/agentpane/sandboxctl/reconcile/claim"
	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// Options are what there is to choose about watching.
type Options struct {
	// Detect reports drift and changes nothing.
	Detect bool
	// Plan is how far each plan goes.
	Plan reconcile.Options
	// Resync is how often everything is compared although nothing was told; it
	// costs no request where nothing differs.
	Resync time.Duration
	// FullResync is how often the server is asked about everything by dry runs,
	// as only it knows what a webhook would make of an object; never when 0.
	FullResync time.Duration
}

// workers is how many scopes are worked on at once. Each has at most as many
// requests under way as it has objects, a handful.
const workers = 16

// The first and the longest pause before a scope that failed is tried again.
const (
	firstRetry = 200 * time.Millisecond
	lastRetry  = 2 * time.Minute
)

// Watcher watches one fleet.
type Watcher struct {
	reconciler *reconcile.Reconciler
	options    Options
	now        func() time.Time
	begun      time.Time
	tell       func(Event)

	mirror *mirror
	queue  workqueue.TypedRateLimitingInterface[string]
	lock   *sharedLock
	pods   *podStates
	flaps  *flaps
	said   *said

	mutex sync.Mutex // protects what follows
	want  *wanted
	// fresh are the scopes that were not brought to the file's latest state yet:
	// that they differ is no drift.
	fresh map[string]bool
	// stands: the fleet's own scope is as the file says, so that a pod may start
	// under its rules. awaiting are the scopes that wait for that.
	stands   bool
	awaiting map[string]bool
	// going are the scopes of which something is on its way out, open those that
	// are still to be looked at, or were not as the file says when they were.
	going, open map[string]bool
	// left are the scopes that differ and are left alone.
	left map[string]bool
	// full are the scopes about which the server is to be asked in any case.
	full map[string]bool
	busy int
	// unseen are the kinds of objects that cannot be watched at present.
	unseen map[string]bool
	// unsettled: something was done or tried since the fleet was last as the
	// file says.
	unsettled bool
}

// New returns a watcher of a fleet, which starts with what its file says now.
// It tells of what happens by tell, which may be called from several goroutines
// at once and must not block.
func New(reconciler *reconcile.Reconciler, client dynamic.Interface, fleet *schema.Fleet, objects []render.Object, options Options, now func() time.Time, tell func(Event)) (*Watcher, error) {
	w := &Watcher{
		options: options, now: now, begun: now(),
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](firstRetry, lastRetry)),
		flaps: newFlaps(now), said: newSaid(), pods: newPodStates(),
		want: newWanted(fleet, objects), fresh: map[string]bool{}, awaiting: map[string]bool{}, going: map[string]bool{}, open: map[string]bool{}, left: map[string]bool{}, full: map[string]bool{}, unseen: map[string]bool{},
		unsettled: true, // until the first look
	}
	w.tell = func(event Event) {
		event.Fleet, event.Time = fleet.Name, now()
		if event.Scope == poolsScope {
			event.Scope = "" // people know it by the pool's name
		}
		tell(event)
	}
	var err error
	if w.mirror, err = newMirror(client, fleet, now, w.changed, w.reached); err != nil {
		return nil, fmt.Errorf("watching fleet %s: %w", fleet.Name, err)
	}
	w.reconciler = reconciler.Watched(w.mirror)
	w.lock = &sharedLock{take: func(ctx context.Context) (context.Context, func() error, error) {
		return w.reconciler.Lock(ctx, fleet)
	}}
	for name := range w.want.scopes {
		w.fresh[name] = true
	}
	return w, nil
}

// Run watches until ctx ends, finishes what is under way then, and waits for
// all that it has started. The error is only that of giving the lock back.
func (w *Watcher) Run(ctx context.Context) error {
	var running sync.WaitGroup
	running.Go(func() { w.mirror.run(ctx) })
	if w.mirror.synced(ctx) {
		w.addAll()
		for range workers {
			running.Go(func() {
				for w.next(ctx) {
				}
			})
		}
		running.Go(func() { w.resync(ctx) })
	}
	<-ctx.Done()
	w.queue.ShutDown()
	running.Wait()
	return w.lock.close()
}

// Update takes over what the file says now. The fleet's name, namespace and
// cluster must be what they were.
func (w *Watcher) Update(fleet *schema.Fleet, objects []render.Object) {
	want := newWanted(fleet, objects)
	w.mutex.Lock()
	changed := want.differs(w.want)
	w.want, w.stands, w.unsettled = want, w.stands && !changed[fleetScope], true
	w.open[fleetScope] = true // before anybody can find it settled
	for name := range changed {
		w.fresh[name], w.open[name] = true, true
	}
	w.mutex.Unlock()
	w.flaps.forget()
	w.said.reset()
	w.look(fleetScope)
	for name := range changed {
		w.queue.Forget(name) // the file may have mended what failed
		w.look(name)
	}
}

// look has a scope looked at soon.
func (w *Watcher) look(scope string) {
	w.mutex.Lock()
	w.open[scope] = true
	w.mutex.Unlock()
	w.queue.Add(scope)
}

// addAll has every scope looked at that the file or the cluster knows.
func (w *Watcher) addAll() {
	for _, name := range w.scopes() {
		w.look(name)
	}
}

// scopes are all that the file or the cluster knows, the fleet's first.
func (w *Watcher) scopes() []string {
	return slices.Concat([]string{fleetScope}, w.current().names(), w.mirror.scopes())
}

func (w *Watcher) resync(ctx context.Context) {
	plain, full := ticker(w.options.Resync), ticker(w.options.FullResync)
	defer plain.Stop()
	defer full.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-plain.C:
		case <-full.C:
			w.mutex.Lock()
			for name := range w.want.scopes {
				w.full[name] = true
			}
			w.mutex.Unlock()
		}
		w.addAll()
	}
}

// ticker ticks every interval; never when that is 0.
func ticker(interval time.Duration) *time.Ticker {
	if interval > 0 {
		return time.NewTicker(interval)
	}
	never := time.NewTicker(time.Hour)
	never.Stop()
	return never
}

// changed is told of each object that the cluster shows otherwise than before.
func (w *Watcher) changed(before, after *unstructured.Unstructured) {
	object := after
	if object == nil {
		object = before
	}
	scope := scopeOf(object)
	if before != nil && scopeOf(before) != scope {
		w.look(scopeOf(before))
	}
	if scope == fleetScope { // until it was looked at, no pod may start under it
		w.mutex.Lock()
		w.stands, w.open[fleetScope] = false, true
		w.mutex.Unlock()
	}
	if object.GetKind() == "Namespace" && Suspends(before) != Suspends(after) {
		w.addAll() // all of it is suspended, or no longer
	}
	if w.mirror.isPooled(object) {
		w.look(poolsScope)
	}
	if object.GetKind() == "Pod" {
		w.tellClaim(before, after)
		for _, event := range w.pods.see(object, after == nil) {
			w.tell(event)
			var why error
			if event.Type == NotReady {
				why = errors.New(event.Message)
			}
			if err := w.reconciler.PodBecame(object, why); err != nil {
				w.tell(Event{Type: Failed, Scope: event.Scope, Ref: event.Ref, UID: event.UID, Err: err})
			}
		}
		if after == nil || before != nil && before.GetLabels()[render.EgressLabel] != after.GetLabels()[render.EgressLabel] {
			w.look(fleetScope) // the allowlist that it was under may go now
		}
	}
	w.look(scope)
}

// reached is told what came of an attempt to watch a kind of object. The
// informers try again by themselves. Of what lasts the first failure is told,
// and that it is over by the fleet that is settled again.
func (w *Watcher) reached(kind string, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	w.mutex.Lock()
	before := len(w.unseen)
	if err != nil {
		w.unseen[kind], w.unsettled = true, true
	} else {
		delete(w.unseen, kind)
	}
	after := len(w.unseen)
	w.mutex.Unlock()
	switch {
	case before == 0 && after > 0:
		w.tell(Event{Type: Unreachable, Err: failure.From(err, failure.Object{Kind: kind, Namespace: w.current().fleet.Namespace})})
	case before > 0 && after == 0:
		w.addAll() // what failed meanwhile need not wait any longer
		for _, name := range w.scopes() {
			w.queue.AddAfter(name, claim.WriteMemory+time.Second) // see apply
		}
	}
}

func (w *Watcher) current() *wanted {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.want
}

// next works on the next scope that is due; false at the end.
func (w *Watcher) next(ctx context.Context) bool {
	scope, over := w.queue.Get()
	if over {
		return false
	}
	defer w.queue.Done(scope)
	if ctx.Err() != nil {
		return true
	}
	w.mutex.Lock()
	w.busy++
	delete(w.open, scope) // what happens from now on opens it again
	delete(w.left, scope)
	w.mutex.Unlock()
	started := w.now()
	outcome := w.work(ctx, scope)
	w.tell(Event{Type: Reconciled, Scope: scope, Took: w.now().Sub(started), Err: outcome.err})
	switch {
	case ctx.Err() != nil:
	case outcome.err != nil:
		if w.said.first(scope, outcome.err.Error()) {
			w.tell(Event{Type: Failed, Scope: scope, Err: outcome.err})
		}
		w.queue.AddRateLimited(scope)
	default:
		w.queue.Forget(scope)
		if outcome.after > 0 {
			w.queue.AddAfter(scope, outcome.after)
		}
	}
	w.rest(scope, outcome)
	return true
}

// rest notes that a scope was worked on, and tells when that was the last one.
func (w *Watcher) rest(scope string, outcome outcome) {
	w.mutex.Lock()
	w.busy--
	if outcome.acted || outcome.err != nil {
		w.open[scope], w.unsettled = true, true
	}
	if outcome.left {
		w.left[scope] = true
	}
	settled := w.unsettled && w.busy == 0 && len(w.awaiting)+len(w.going)+len(w.open)+len(w.unseen) == 0
	if settled {
		w.unsettled = false
	}
	count, left := w.want.count(), len(w.left)
	w.mutex.Unlock()
	if settled {
		w.tell(Event{Type: Settled, Count: count, Left: left})
	}
}

// planOptions are those of one plan.
func (w *Watcher) planOptions(scope string) reconcile.Options {
	options := w.options.Plan
	w.mutex.Lock()
	defer w.mutex.Unlock()
	options.Full = options.Full || w.full[scope]
	delete(w.full, scope)
	return options
}

// planned is told what came of a plan with those options: where it failed, the
// server is to be asked about as much again.
func (w *Watcher) planned(scope string, options reconcile.Options, done outcome) {
	if options.Full && done.err != nil {
		w.mutex.Lock()
		defer w.mutex.Unlock()
		w.full[scope] = true
	}
}
