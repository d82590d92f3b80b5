package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"charm.land/lipgloss/v2"

	"github.com/agentpane/sandboxctl/reconcile"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/reconcile/session"
)

// sessionLine is a change of a sandbox's tmux sessions as all views show it.
type sessionLine struct {
	mark
	// name is as "pane api/agent:main.1".
	name string
	// what happens, with why and what it ends.
	what   string
	detail []string
	path   string
	// ends tells that running work ends; problem that it cannot be done.
	ends, problem bool
}

// sessionLines are the changes of one sandbox's sessions, and what is in their
// way. What a sandbox has said of itself is a stranger's.
func sessionLines(s plan.Sessions) []sessionLine {
	var lines []sessionLine
	for _, change := range s.Changes {
		line := sessionLine{
			mark: markOfSession(change.Action), name: sessionName(s.Sandbox, change), path: s.PathOf(change),
			detail: change.Detail, ends: len(change.Ends) > 0,
		}
		ends := ""
		if line.ends {
			ends = "ends: " + strings.Join(change.Ends, "; ")
		}
		line.what = printable(because(line.verb, change.Reason, ends))
		lines = append(lines, line)
	}
	for _, blocked := range s.Blocked {
		lines = append(lines, sessionLine{
			mark: markOfSession(session.Create), name: "session " + s.Sandbox + "/" + blocked.Session, problem: true,
			path: plan.SessionPath(s.Sandbox, blocked.Session), what: "cannot be done: " + printable(blocked.Error()),
		})
	}
	if s.Problem != nil {
		lines = append(lines, sessionLine{
			mark: markOfSession(session.Update), name: "sessions of " + s.Sandbox, problem: true,
			path: plan.SessionPath(s.Sandbox, ""), what: "cannot be done: " + printable(s.Problem.Error()),
		})
	}
	return lines
}

func sessionName(sandbox string, change session.Change) string {
	if change.Name == "" {
		return string(change.Kind) + " " + sandbox
	}
	return printable(string(change.Kind) + " " + sandbox + "/" + change.Name)
}

func markOfSession(action session.Action) mark {
	style := lipgloss.NewStyle()
	switch action {
	case session.Create:
		return mark{"+", "will be created", style.Foreground(lipgloss.Green)}
	case session.Adopt:
		return mark{"+", "will be adopted", style.Foreground(lipgloss.Yellow)}
	case session.Delete:
		return mark{"-", "will be ended", style.Foreground(lipgloss.Red)}
	}
	return mark{"~", "will be changed", style.Foreground(lipgloss.Yellow)}
}

// printSessions prints the changes of sessions for people.
func printSessions(out io.Writer, p planned) {
	for _, s := range p.Sessions {
		for _, line := range sessionLines(s) {
			sign := line.style.Render(line.sign)
			if line.problem {
				sign = "!"
			}
			fmt.Fprintf(out, "  %s %s %s\n", sign, lipgloss.NewStyle().Bold(true).Render(line.name), line.what)
			if at := p.position(line.path); at.File != nil {
				fmt.Fprintf(out, "      # %s (%s)\n", line.path, at)
			}
			for _, detail := range line.detail {
				fmt.Fprintf(out, "      + %s\n", printable(detail))
			}
			fmt.Fprintln(out)
		}
	}
}

// sessionProblems are why sessions cannot be made, one error each. They keep
// nothing else from being done.
func sessionProblems(p plan.Plan) error {
	var errs []error
	for _, s := range p.Sessions {
		if s.Problem != nil {
			errs = append(errs, s.Problem)
		}
		for _, blocked := range s.Blocked {
			errs = append(errs, reconcile.SessionBlocked(s, p.Namespace, blocked))
		}
	}
	return errors.Join(errs...)
}

// tell prints what has become of a sandbox's sessions.
func (a *applyProgress) tellSessions(event reconcile.SessionEvent) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	switch {
	case event.Err != nil:
		fmt.Fprintf(a.env.stderr, "  sessions of %s failed\n", event.Sandbox)
	case len(event.Changes) > 0:
		fmt.Fprintf(a.env.stderr, "  sessions of %s: %s\n", event.Sandbox, count(len(event.Changes), "change"))
	}
}
