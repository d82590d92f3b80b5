package session

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"
)

// Action is what happens to a session, a window or a pane.
type Action string

// The actions. What is created anew in place of what was there is an Update.
const (
	Create Action = "create"
	Adopt  Action = "adopt"
	Update Action = "update"
	Delete Action = "delete"
)

// Kind is what a change is about.
type Kind string

// The kinds.
const (
	SessionKind     Kind = "session"
	WindowKind      Kind = "window"
	PaneKind        Kind = "pane"
	EnvironmentKind Kind = "environment"
)

// Change is one thing that changes in a sandbox's sessions.
type Change struct {
	Action Action `json:"action"`
	Kind   Kind   `json:"kind"`
	// Name is tmux's: "agent", "agent:main", "agent:main.1"; panes are counted
	// from 0, in the order of the file. It is empty for the environment.
	Name string `json:"name,omitempty"`
	// Session is the session's name.
	Session string `json:"session,omitempty"`
	// Reason says what differs, or why it goes.
	Reason string `json:"reason,omitempty"`
	// Detail says what is made, a line each.
	Detail []string `json:"detail,omitempty"`
	// Ends is the running work that the change ends, as "npm test, running for
	// 3m".
	Ends []string `json:"ends,omitempty"`
}

// work returns what runs in panes, for Change.Ends. What has ended already, or
// is a shell that nobody has typed a command in, is no work.
func work(now time.Time, windows ...Window) []string {
	var running []string
	for _, w := range windows {
		for _, p := range w.Panes {
			if p.Dead || idle(p.Title()) {
				continue
			}
			text := p.Title()
			if !p.Started.IsZero() && now.After(p.Started) {
				text = fmt.Sprintf("%s, running for %s", text, duration.HumanDuration(now.Sub(p.Started)))
			}
			running = append(running, text)
		}
	}
	return running
}

// idle tells whether that program in the foreground is a shell at its prompt.
func idle(command string) bool {
	switch strings.TrimPrefix(command, "-") {
	case "sh", "ash", "bash", "dash", "fish", "ksh", "zsh", aShell, "":
		return true
	}
	return false
}

// Blocked is why a declared session cannot be had: one of that name is there,
// and people made it.
type Blocked struct{ Session string }

func (b Blocked) Error() string {
	return "session " + b.Session + " is there, and was not made from the file"
}
