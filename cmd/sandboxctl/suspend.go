package main

import (
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/agentpane/sandboxctl/reconcile"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/reconcile/watch"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// suspension is what of a fleet asks watch to leave it alone.
type suspension struct {
	// fleet is why the whole fleet is suspended; empty where it is not.
	fleet string
	// sandboxes are those that are.
	sandboxes map[string]bool
}

func suspensionOf(fleet *schema.Fleet, seen reconcile.Observation) suspension {
	s := suspension{sandboxes: map[string]bool{}}
	if fleet.Suspend {
		s.fleet = "its file says suspend: true"
	}
	if watch.Suspends(seen.Namespace) {
		s.fleet = "its namespace has the annotation " + watch.SuspendAnnotation
	}
	for ref, live := range seen.Live {
		if !watch.Suspends(live) {
			continue
		}
		if sandbox := live.GetLabels()[render.SandboxIDLabel]; sandbox != "" {
			s.sandboxes[sandbox] = true
		} else {
			s.fleet = ref.String() + " has the annotation " + watch.SuspendAnnotation
		}
	}
	return s
}

// spare is the plan without what would change a suspended sandbox. While there
// is one, nothing goes that sandboxes share: it may be what that one lives under.
func (s suspension) spare(p plan.Plan) plan.Plan {
	if len(s.sandboxes) == 0 {
		return p
	}
	p.Changes = slices.DeleteFunc(slices.Clone(p.Changes), func(change plan.Change) bool {
		labels := change.Labels
		if labels == nil && change.Desired != nil {
			labels = change.Desired.GetLabels()
		}
		sandbox := labels[render.SandboxIDLabel]
		return s.sandboxes[sandbox] || sandbox == "" && change.Action == plan.Delete
	})
	p.Sessions = slices.DeleteFunc(slices.Clone(p.Sessions), func(sessions plan.Sessions) bool { return s.sandboxes[sessions.Sandbox] })
	p.Active = slices.DeleteFunc(slices.Clone(p.Active), func(active plan.Activity) bool { return s.sandboxes[active.Sandbox] })
	return p
}

// print says what is left as it is, and why.
func (s suspension) print(out io.Writer, fleet string) {
	if s.fleet != "" {
		fmt.Fprintf(out, "Fleet %s is suspended, as %s: nothing of it was changed.\n", fleet, s.fleet)
		return
	}
	for _, sandbox := range slices.Sorted(maps.Keys(s.sandboxes)) {
		fmt.Fprintf(out, "Sandbox %s is suspended by the annotation %s: it is left as it is.\n", sandbox, watch.SuspendAnnotation)
	}
}
