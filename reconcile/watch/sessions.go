package watch

import (
	"context"
	"fmt"

	"github.com/agentpane/sandboxctl/reconcile"
	"github.com/agentpane/sandboxctl/reconcile/plan"
)

// sessions brings the tmux sessions of a scope, whose objects are as the file
// says, to what it says of them. Where the pod says that all is as it should be, nobody was
// asked and nothing is done.
func (w *Watcher) sessions(ctx context.Context, scope string, seen reconcile.Observation, want *wanted, p plan.Plan) outcome {
	if len(p.Sessions) == 0 {
		return w.asWanted(scope, seen, want, p)
	}
	if _, err := w.reconciler.ApplySessions(ctx, want.fleet, p, func(event reconcile.SessionEvent) {
		if event.Err == nil {
			w.tellChanges(scope, event.Sessions, SessionChanged)
		}
	}); err != nil {
		return outcome{err: err}
	}
	w.look(scope) // from the mirror, at no cost: the pod says by now that it is as wanted
	return outcome{acted: true}
}

// tellSessions tells of what is not changed, once.
func (w *Watcher) tellSessions(scope string, p plan.Plan) {
	for _, s := range p.Sessions {
		if !s.Idle() && w.said.first(scope, fmt.Sprint(s.Changes, s.Blocked, s.Problem)) {
			w.tellChanges(scope, s, SessionDrift)
			if s.Problem != nil {
				w.tell(Event{Type: SessionDrift, Scope: scope, Err: s.Problem})
			}
		}
	}
}

func (w *Watcher) tellChanges(scope string, s plan.Sessions, as Type) {
	for _, change := range s.Changes {
		w.tell(Event{Type: as, Scope: scope, Session: change})
	}
}
