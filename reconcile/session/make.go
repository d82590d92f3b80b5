package session

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agentpane/sandboxctl/schema"
)

// Options are what a comparison depends on beside the two states.
type Options struct {
	// Adopt takes over sessions that people made under a declared name.
	Adopt bool
	// Now is the time, for how long something has run.
	Now time.Time
	// Token is hexadecimal and new: it marks what the command file changes.
	Token string
}

// Result is what a comparison comes to.
type Result struct {
	Changes []Change
	// Blocked are the declared sessions that cannot be had.
	Blocked []Blocked
	// File is the command file for ChangeCommand, empty where nothing changes.
	File string
}

// Done tells whether nothing is left to be done, but for sessions of which it
// was known that they cannot be had.
func (r Result) Done(blocked []Blocked) bool {
	return len(r.Changes) == 0 && !slices.ContainsFunc(r.Blocked, func(b Blocked) bool { return !slices.Contains(blocked, b) })
}

// Token returns a token that follows from the parts: one of them must be new.
func Token(parts ...string) string { return digest(parts) }

// ChangeCommand is the command that reads Result.File from its input. It starts
// tmux's server where none runs.
func ChangeCommand() []string { return []string{"tmux", "-u", "start-server", ";", "source-file", "-"} }

// Make compares what is wanted with what is there. It fails where something
// wanted cannot be said to tmux at all.
func Make(want Desired, have State, options Options) (Result, error) {
	m := maker{want: want, options: options}
	m.environment(have.Environment)
	for i := range want.Sessions {
		s := &want.Sessions[i]
		there := have.Session(s.Name)
		switch {
		case there == nil:
			m.create(s)
		case there.Mark == "" && !options.Adopt:
			m.result.Blocked = append(m.result.Blocked, Blocked{s.Name})
		default:
			m.update(s, there)
		}
	}
	for _, there := range have.Sessions {
		declared := slices.ContainsFunc(want.Sessions, func(s schema.Session) bool { return s.Name == there.Name })
		if there.Mark != "" && !declared {
			m.change(Change{
				Action: Delete, Kind: SessionKind, Name: there.Name, Session: there.Name,
				Reason: "it is no longer in the file", Ends: work(options.Now, there.Windows...),
			})
			m.file.line([]string{"kill-session", "-t", there.ID})
		}
	}
	if m.file.err != nil {
		return Result{}, m.file.err
	}
	if m.file.text.Len() > 0 {
		m.result.File = m.file.guarded(have.Token, options.Token)
	}
	return m.result, nil
}

type maker struct {
	want    Desired
	options Options
	file    file
	result  Result
	keys    int // how many were given
}

func (m *maker) change(c Change) { m.result.Changes = append(m.result.Changes, c) }

// environment sets the sandbox's variables where every session finds them.
func (m *maker) environment(mark string) {
	hash, old, _ := strings.Cut(mark, " ")
	if hash == m.want.environmentHash() {
		return
	}
	m.change(Change{Action: Update, Kind: EnvironmentKind, Reason: "the sandbox's environment changes: " + strings.Join(names(m.want.Environment), ", ")})
	m.variables("-g", strings.Split(old, ","), m.want.Environment)
	m.file.setServer(environmentOption, strings.TrimSpace(m.want.environmentHash()+" "+strings.Join(names(m.want.Environment), ",")))
}

// variables sets variables in the environment that where names, and takes those
// out that were set before.
func (m *maker) variables(where string, before []string, want map[string]string) {
	scope := strings.Fields(where)
	for _, name := range before {
		if _, stays := want[name]; !stays && name != "" {
			m.file.line(append(append([]string{"set-environment"}, scope...), "-u", "--", name))
		}
	}
	for _, name := range names(want) {
		m.file.line(append(append([]string{"set-environment"}, scope...), "--", name, want[name]))
	}
}

// The size of a session that nobody looks at: large enough for several panes.
const width, height = "220", "50"

// target is a session, as a target: exactly that name.
func target(name string) string { return "=" + name + ":" }

// create makes a session, unless people have made one of its name meanwhile. tmux
// makes one with a window, and that window's environment would be the session's:
// so it is one that only waits, and goes when the declared ones are there.
func (m *maker) create(s *schema.Session) {
	change := Change{Action: Create, Kind: SessionKind, Name: s.Name, Session: s.Name}
	for i := range s.Windows {
		change.Detail = append(change.Detail, windowText(&s.Windows[i]))
	}
	m.change(change)
	m.file.setServer(directoryOption, s.StartDirectory)
	command := []string{
		"new-session", "-d", "-s", s.Name, "-x", width, "-y", height, "-c", directoryFormat,
		"--", "/bin/sh", "-c", "exec sleep 60",
	}
	m.file.created([][]string{command}, m.key(), func() { m.fill(s) })
}

// key is one that no other part of the command file has, nor any other file.
func (m *maker) key() string {
	m.keys++
	return fmt.Sprintf("%s-%d", m.options.Token, m.keys)
}

// fill makes of a session that was just created what is declared.
func (m *maker) fill(s *schema.Session) {
	m.mark(s, nil)
	for i := range s.Windows {
		m.createWindow(s, &s.Windows[i], func() {})
	}
	// The first, whatever number the sandbox's own configuration gives it.
	m.file.line([]string{"kill-window", "-t", target(s.Name) + "{start}"})
	m.file.line([]string{"move-window", "-r", "-t", target(s.Name)})
	m.file.line([]string{"select-window", "-t", target(s.Name) + "{start}"})
	for range max(0, slices.IndexFunc(s.Windows, func(w schema.Window) bool { return w.Focus })) {
		m.file.line([]string{"next-window", "-t", target(s.Name)})
	}
}

// mark notes down what a session was made from, and sets its environment.
func (m *maker) mark(s *schema.Session, before []string) {
	at := target(s.Name)
	m.variables("-t "+at, before, s.Environment)
	m.file.line(
		[]string{"set-option", "-t", at, sessionOption, sessionHash(s)},
		[]string{"set-option", "-t", at, variablesOption, strings.Join(names(s.Environment), ",")},
	)
}

func windowText(w *schema.Window) string {
	var panes []string
	for i := range w.Panes {
		panes = append(panes, commandText(&w.Panes[i]))
	}
	return "window " + w.Name + ": " + strings.Join(panes, " | ")
}

// createWindow makes a window after all others of its session, and its panes; add
// adds what else is to be done to it. It is not shown to those who look at another.
func (m *maker) createWindow(s *schema.Session, w *schema.Window, add func()) {
	at := target(s.Name) + "{end}"
	m.file.setServer(nameOption, w.Name)
	made := m.start(s, &w.Panes[0], at, "new-window", "-d", "-a", "-t", at, "-n", nameFormat)
	m.file.created(made, m.key(), func() {
		m.file.line([]string{"set-option", "-w", "-t", at, windowOption, windowKey(w.Name)})
		// Panes are counted as the file has them, whatever the sandbox's own configuration says.
		m.file.line([]string{"set-option", "-w", "-t", at, "pane-base-index", "0"})
		for i := range w.Panes[1:] {
			// The active pane is the one before.
			m.file.line(m.start(s, &w.Panes[i+1], at, "split-window", "-t", at)...)
			m.file.line([]string{"select-layout", "-t", at, "tiled"}) // makes room for the next
		}
		m.layout(w, at)
		focus := max(0, slices.IndexFunc(w.Panes, func(p schema.Pane) bool { return p.Focus }))
		m.file.line([]string{"select-pane", "-t", fmt.Sprintf("%s.%d", at, focus)})
		add()
	})
}

func (m *maker) layout(w *schema.Window, at string) {
	m.file.line([]string{"select-layout", "-t", at, w.Layout}, []string{"set-option", "-w", "-t", at, layoutOption, w.Layout})
}

// start returns, for one line, the command of tmux that starts a pane's program,
// and those that note down at the pane what it was made from, before tmux can see
// its program end. Where the first fails, what is at that place is another pane.
func (m *maker) start(s *schema.Session, p *schema.Pane, at string, command ...string) [][]string {
	m.file.setServer(directoryOption, p.StartDirectory)
	command = append(command, "-c", directoryFormat)
	for _, name := range names(p.Environment) {
		command = append(command, "-e", name+"="+p.Environment[name])
	}
	with := func(words ...string) []string { return append([]string{"set-option", "-p", "-t", at}, words...) }
	return [][]string{
		append(append(command, "--"), argv(p)...),
		with("remain-on-exit", "on"),
		with(paneOption, m.want.paneHash(s, p)),
		with(commandOption, encodeText(commandText(p))),
		with(startedOption, strconv.FormatInt(m.options.Now.Unix(), 10)),
		with("-u", restartsOption),
	}
}

// update brings a session that there is to what is wanted.
func (m *maker) update(s *schema.Session, there *Session) {
	switch {
	case there.Mark == "":
		m.change(Change{Action: Adopt, Kind: SessionKind, Name: s.Name, Session: s.Name, Reason: "it is there; what people made in it stays"})
		m.mark(s, nil)
	case there.Mark != sessionHash(s):
		m.change(Change{Action: Update, Kind: SessionKind, Name: s.Name, Session: s.Name, Reason: "its directory or environment changes"})
		m.mark(s, there.Variables)
	}
	match := make([]*Window, len(s.Windows))
	var order []string // the declared windows that are there, by id
	for i := range s.Windows {
		w := &s.Windows[i]
		j := slices.IndexFunc(there.Windows, func(have Window) bool { return have.Mark == windowKey(w.Name) })
		if j < 0 {
			continue
		}
		match[i] = &there.Windows[j]
		m.updateWindow(s, w, there.Windows[j])
		order = append(order, there.Windows[j].ID)
	}
	m.orderWindows(s, there, order)
	m.addWindows(s, match)
	for _, have := range there.Windows { // last, as a session without windows ends
		if have.Mark != "" && !slices.Contains(order, have.ID) {
			m.change(Change{
				Action: Delete, Kind: WindowKind, Name: s.Name + ":" + have.Name, Session: s.Name,
				Reason: "it is no longer in the file", Ends: work(m.options.Now, have),
			})
			m.file.line([]string{"kill-window", "-t", have.ID})
		}
	}
}

// addWindows makes the windows that match no other, each where the file has it.
// tmux does not tell what id a new window gets. So each is made at the end and
// moved from there: those before the first one that was there, in their order;
// those after another, in the opposite order.
func (m *maker) addWindows(s *schema.Session, match []*Window) {
	first := slices.IndexFunc(match, func(w *Window) bool { return w != nil })
	add := func(i int, move ...string) {
		w := &s.Windows[i]
		m.change(Change{Action: Create, Kind: WindowKind, Name: s.Name + ":" + w.Name, Session: s.Name, Detail: []string{windowText(w)}})
		m.createWindow(s, w, func() {
			if len(move) > 0 {
				m.file.line(append([]string{"move-window", "-d", "-s", target(s.Name) + "{end}"}, move...))
			}
		})
	}
	for i := range match {
		switch {
		case first < 0:
			add(i)
		case i < first:
			add(i, "-b", "-t", match[first].ID)
		}
	}
	for i := len(match) - 1; first >= 0 && i > first; i-- {
		if match[i] != nil {
			continue
		}
		before := i - 1
		for match[before] == nil {
			before--
		}
		add(i, "-a", "-t", match[before].ID)
	}
}

// orderWindows swaps the windows that stay into the file's order.
func (m *maker) orderWindows(s *schema.Session, there *Session, want []string) {
	var have []string
	for _, w := range there.Windows {
		if slices.Contains(want, w.ID) {
			have = append(have, w.ID)
		}
	}
	if swaps := swapsFor(have, want); len(swaps) > 0 {
		m.change(Change{Action: Update, Kind: SessionKind, Name: s.Name, Session: s.Name, Reason: "the order of its windows changes"})
		for _, swap := range swaps {
			m.file.line([]string{"swap-window", "-d", "-s", swap[0], "-t", swap[1]})
		}
	}
}

// swapsFor returns the pairs to swap that bring what is there into the wanted
// order of the same things.
func swapsFor(have, want []string) (swaps [][2]string) {
	have = slices.Clone(have)
	for i := range want {
		if have[i] != want[i] {
			j := slices.Index(have, want[i])
			swaps = append(swaps, [2]string{have[j], have[i]})
			have[i], have[j] = have[j], have[i]
		}
	}
	return swaps
}
