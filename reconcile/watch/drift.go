package watch

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/reconcile"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/reconcile/pool"
)

// drift tells of what somebody else has changed. An object that is changed back
// again and again has another master: it is left alone, and out of the plan, for
// a while. Which those are, and for how long the first of them, or a pool's pod
// that failed just now, is left alone, it returns.
func (w *Watcher) drift(scope string, seen reconcile.Observation, p *plan.Plan) (paused []plan.Ref, pause time.Duration) {
	if w.isFresh(scope) {
		return nil, 0
	}
	p.Changes = slices.DeleteFunc(p.Changes, func(change plan.Change) bool {
		wait := w.drifted(scope, seen, change)
		if wait > 0 {
			paused = append(paused, change.Ref)
			pause = sooner(pause, wait)
		}
		return wait > 0
	})
	var levels []plan.PoolLevel
	for _, level := range p.Pools {
		level, wait := withoutFailed(level, seen.Pooled, w.now())
		pause = sooner(pause, wait)
		if len(level.Changes) > 0 {
			levels = append(levels, level)
		}
	}
	p.Pools = levels
	return paused, pause
}

// drifted tells of a change that is to be made again, and returns for how long it
// is not.
func (w *Watcher) drifted(scope string, seen reconcile.Observation, change plan.Change) time.Duration {
	if isOrdered(scope, change) || w.ranOut(seen.Live[change.Ref]) {
		return 0
	}
	wait, begins := w.flaps.pause(change.Ref)
	if wait > 0 && !begins {
		return wait
	}
	text := fieldsText(change)
	if w.said.first(scope, fmt.Sprint(Drift, change.Action, change.Ref, change.ResourceVersion, text)) { // it may have to be tried more than once
		w.tell(Event{Type: Drift, Scope: scope, Ref: change.Ref, UID: change.UID, Action: change.Action, Message: text})
	}
	if begins {
		w.tell(Event{Type: Flapping, Scope: scope, Ref: change.Ref, UID: change.UID, Took: wait, Message: othersText(seen.Live[change.Ref])})
	}
	return wait
}

// isFresh tells whether the file has something new for the scope.
func (w *Watcher) isFresh(scope string) bool {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.fresh[scope]
}

// isOrdered tells whether a change is what the file wants, or a note of our own
// about that.
func isOrdered(scope string, change plan.Change) bool {
	return change.Idling() || change.Ref.Kind == "ConfigMap" && scope != fleetScope
}

// ranOut tells whether an object is a pod whose claim has run out.
func (w *Watcher) ranOut(live *unstructured.Unstructured) bool {
	if live == nil {
		return false
	}
	pod, ok := pool.Read(live)
	return ok && pod.Claim.Expired(w.now())
}

// tellDrift tells of each change that is not made, once.
func (w *Watcher) tellDrift(scope string, p plan.Plan) {
	for _, level := range p.Pools {
		if text := levelText(level); w.said.first(scope, level.Name+text) {
			w.tell(Event{Type: PoolDrift, Pool: level.Name, Message: text})
		}
	}
	for _, change := range p.Changes {
		text := fieldsText(change)
		if w.said.first(scope, fmt.Sprint(change.Action, change.Ref, text)) {
			w.tell(Event{Type: Drift, Scope: scope, Ref: change.Ref, UID: change.UID, Action: change.Action, Message: text})
		}
	}
}

// levelText is how a pool's level changes.
func levelText(level plan.PoolLevel) string {
	return fmt.Sprintf("%d → %d warm", level.From, level.To)
}

// fieldsText names the fields that differ.
func fieldsText(change plan.Change) string {
	if change.Action != plan.Update {
		return change.Reason
	}
	var paths []string
	for _, field := range change.Fields {
		paths = append(paths, field.Path)
	}
	return strings.Join(paths, ", ")
}
