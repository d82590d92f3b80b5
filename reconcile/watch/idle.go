package watch

import (
	"context"

	"github.com/agentpane/sandboxctl/reconcile"
	"github.com/agentpane/sandboxctl/reconcile/plan"
)

// noteActivity notes on a scope's pod when its sandbox was last used, after it
// was looked into. Where nothing is to be written, the watcher itself knows when
// to look again: see due. That it could not be looked into is told once.
func (w *Watcher) noteActivity(ctx context.Context, scope string, want *wanted, seen reconcile.Observation, p plan.Plan) error {
	for _, active := range p.Active {
		if active.Problem != nil && w.said.first(scope, active.Problem.Error()) {
			w.tell(Event{Type: Failed, Scope: scope, Ref: active.Ref, UID: active.UID, Err: active.Problem})
		}
	}
	if w.handsOff(want, seen) {
		return nil
	}
	return w.reconciler.NoteActivity(ctx, p)
}
