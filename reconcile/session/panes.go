package session

import (
	"fmt"
	"slices"

	"github.com/agentpane/sandboxctl/schema"
)

// updateWindow brings a window's panes to what is wanted. Panes that are as
// they should be are left alone; the others are made out of those that are no
// longer wanted, as far as these go.
func (m *maker) updateWindow(s *schema.Session, w *schema.Window, there Window) {
	name := s.Name + ":" + w.Name
	match, rest := m.matchPanes(s, w, there)
	before := len(m.result.Changes)
	var order []string
	for i := range w.Panes {
		p, paneName := &w.Panes[i], fmt.Sprintf("%s.%d", name, i)
		switch have := match[i]; {
		case have == nil:
			continue
		case have.Mark != m.want.paneHash(s, p):
			m.change(Change{
				Action: Update, Kind: PaneKind, Name: paneName, Session: s.Name,
				Reason: "it is started anew: " + difference(have.Declared, commandText(p)), Ends: work(m.options.Now, Window{Panes: []Pane{*have}}),
			})
			m.respawn(s, p, have.ID)
		case have.Dead && restarts(p, have):
			m.change(Change{Action: Update, Kind: PaneKind, Name: paneName, Session: s.Name, Reason: "it is started again: it " + have.Ended()})
			m.respawn(s, p, have.ID)
		}
		order = append(order, match[i].ID)
	}
	var have []string
	for _, p := range there.Panes {
		if slices.Contains(order, p.ID) {
			have = append(have, p.ID)
		}
	}
	if swaps := swapsFor(have, order); len(swaps) > 0 {
		m.change(Change{Action: Update, Kind: WindowKind, Name: name, Session: s.Name, Reason: "the order of its panes changes"})
		for _, swap := range swaps {
			m.file.line([]string{"swap-pane", "-d", "-s", swap[0], "-t", swap[1]})
		}
	}
	resized := m.addPanes(s, w, there, match)
	for _, p := range rest {
		m.change(Change{
			Action: Delete, Kind: PaneKind, Name: fmt.Sprintf("%s.%d", name, p.Index), Session: s.Name,
			Reason: "it is no longer in the file: " + p.Title(), Ends: work(m.options.Now, Window{Panes: []Pane{p}}),
		})
		m.file.line([]string{"kill-pane", "-t", p.ID})
		resized = true
	}
	if there.Layout != w.Layout {
		if len(m.result.Changes) == before {
			m.change(Change{Action: Update, Kind: WindowKind, Name: name, Session: s.Name, Reason: fmt.Sprintf("its layout changes: %s → %s", there.Layout, w.Layout)})
		}
		resized = true
	}
	if resized {
		m.layout(w, there.ID)
	}
}

// difference says what a changed pane has that the old one had not.
func difference(before, after string) string {
	if before == after {
		return "its arguments, directory, environment or restart policy change"
	}
	return before + " → " + after
}

// restarts tells whether a dead pane's policy wants it alive. Its own
// supervision sees to that, unless somebody has killed it.
func restarts(p *schema.Pane, have *Pane) bool {
	failed := have.Status != 0 || have.Signal != "" && have.Signal != "0"
	return p.Restart == schema.Always || p.Restart == schema.OnFailure && failed
}

// matchPanes finds for each wanted pane the one that there is, or nil: first
// those that are the same, then any. The rest is no longer wanted.
func (m *maker) matchPanes(s *schema.Session, w *schema.Window, there Window) (match []*Pane, rest []Pane) {
	match = make([]*Pane, len(w.Panes))
	free := slices.DeleteFunc(slices.Clone(there.Panes), func(p Pane) bool { return p.Mark == "" })
	for i := range w.Panes {
		hash := m.want.paneHash(s, &w.Panes[i])
		if j := slices.IndexFunc(free, func(p Pane) bool { return p.Mark == hash }); j >= 0 {
			match[i] = new(free[j])
			free = slices.Delete(free, j, j+1)
		}
	}
	for i := range w.Panes {
		if match[i] == nil && len(free) > 0 {
			match[i] = new(free[0])
			free = free[1:]
		}
	}
	return match, free
}

// addPanes makes the panes that match no other, each after the one before it.
func (m *maker) addPanes(s *schema.Session, w *schema.Window, there Window, match []*Pane) (added bool) {
	at, before := there.ID, false
	if j := slices.IndexFunc(match, func(p *Pane) bool { return p != nil }); j >= 0 {
		at, before = match[j].ID, true
	}
	for i := range w.Panes {
		if match[i] != nil {
			at, before = match[i].ID, false
			continue
		}
		p := &w.Panes[i]
		m.change(Change{Action: Create, Kind: PaneKind, Name: fmt.Sprintf("%s:%s.%d", s.Name, w.Name, i), Session: s.Name, Reason: commandText(p)})
		command := []string{"split-window", "-t", at}
		if before {
			command = append(command, "-b")
		}
		if !added {
			m.file.line([]string{"select-layout", "-t", there.ID, "tiled"}) // makes room for it, as the one below for the next
		}
		m.file.line(m.start(s, p, there.ID, command...)...) // the window's active pane is the new one
		at, before, added = there.ID, false, true
		m.file.line([]string{"select-layout", "-t", at, "tiled"})
	}
	for _, p := range there.Panes {
		if added && p.Active { // as those who look at it had it
			m.file.line([]string{"select-pane", "-t", p.ID})
		}
	}
	return added
}

func (m *maker) respawn(s *schema.Session, p *schema.Pane, id string) {
	m.file.line(m.start(s, p, id, "respawn-pane", "-k", "-t", id)...)
}
