package session

import (
	"fmt"
	"strconv"
	"strings"
)

// Target is a session, or a window or pane of it: SESSION, SESSION:WINDOW or
// SESSION:WINDOW.PANE, as tmux writes it.
type Target struct {
	Session string
	// Window is a name or a number, Pane a number; without them, those that the
	// session shows are meant.
	Window, Pane string

	id string // of a pane, instead of all that
}

// PaneTarget is the pane with that id.
func PaneTarget(id string) Target { return Target{id: id} }

// ParseTarget reads a target.
func ParseTarget(text string) (Target, error) {
	var t Target
	rest, inWindow := "", false
	t.Session, rest, inWindow = strings.Cut(text, ":")
	t.Window, t.Pane, _ = strings.Cut(rest, ".")
	switch {
	case t.Session == "" || strings.ContainsAny(t.Session, ".\n"), strings.ContainsAny(rest, ":\n"):
		return Target{}, fmt.Errorf("%q is no session: write SESSION, SESSION:WINDOW or SESSION:WINDOW.PANE", text)
	case inWindow && t.Window == "":
		return Target{}, fmt.Errorf("%q names no window: write SESSION:WINDOW or SESSION:WINDOW.PANE", text)
	}
	if _, err := strconv.ParseUint(t.Pane, 10, 16); t.Pane != "" && err != nil {
		return Target{}, fmt.Errorf("%q: a pane is a number, from 0", text)
	}
	return t, nil
}

// String is the target as people write it.
func (t Target) String() string {
	text := t.Session
	if t.Window != "" {
		text += ":" + t.Window
	}
	if t.Pane != "" {
		text += "." + t.Pane
	}
	return text
}

// exact is the target for tmux: exactly these names, and no pattern.
func (t Target) exact() string {
	if t.id != "" {
		return argument(t.id)
	}
	text := "=" + t.Session + ":"
	if t.Window != "" {
		if _, err := strconv.Atoi(t.Window); err != nil {
			text += "="
		}
		text += t.Window
	}
	if t.Pane != "" {
		text += "." + t.Pane
	}
	return argument(text)
}

// argument is a word for tmux's command line, where a ";" at the end of a word
// would end the command.
func argument(word string) string {
	if text, ok := strings.CutSuffix(word, ";"); ok {
		return text + `\;`
	}
	return word
}

// DeadText is what FindCommand and SendCommand have tmux print of a pane whose
// command has ended.
const DeadText = "sandboxctl: dead"

// FindCommand is tmux's arguments that print the id of the target's pane, or
// DeadText. It fails where there is none, which display-message alone does not.
func (t Target) FindCommand() []string {
	return []string{
		"copy-mode", "-q", "-t", t.exact(), ";",
		"display-message", "-p", "-t", t.exact(), "#{?pane_dead," + DeadText + ",#{pane_id}}",
	}
}

// SendCommand is tmux's arguments that type what stands in the input into the
// pane with that id: as one paste where the program in the pane knows what that
// is, so that it does not take each line for a command of its own. The buffer
// must be nobody else's: two that type at once would paste each other's. Nothing
// is pasted where the pane's command has ended, which tmux would crash of; and a
// pane that somebody looks back in is not, so that it takes Enter.
func SendCommand(pane, buffer string, text, enter bool) []string {
	var command []string
	alive := "copy-mode -q -t " + pane
	dead := "display-message -p \"" + DeadText + "\""
	if text {
		command = append(command, "load-buffer", "-b", buffer, "-", ";")
		alive += " ; paste-buffer -d -p -r -b " + buffer + " -t " + pane
		dead = "delete-buffer -b " + buffer + " ; " + dead
	}
	if enter {
		alive += " ; send-keys -t " + pane + " Enter"
	}
	return append(command, "if-shell", "-F", "-t", pane, "#{?pane_dead,,#{pane_id}}", alive, dead)
}

// CaptureCommand is tmux's arguments that print at least the last lines.
func (t Target) CaptureCommand(lines int) []string {
	return []string{"capture-pane", "-p", "-J", "-t", t.exact(), "-S", "-" + strconv.Itoa(lines)}
}

// LastLines returns the last lines of a pane's content, without the empty ones
// below them.
func LastLines(content string, count int) string {
	lines := strings.Split(strings.TrimRight(content, "\n \t"), "\n")
	text := strings.Join(lines[max(0, len(lines)-count):], "\n")
	if text == "" {
		return ""
	}
	return text + "\n"
}

// KillCommand is tmux's arguments that end the session.
func (t Target) KillCommand() []string {
	return []string{"kill-session", "-t", Target{Session: t.Session}.exact()}
}

// attachScript attaches to the session $1. What it returns is never 0: that is
// what a connection that breaks off looks like.
const attachScript = `export TERM="$2"
tmux -u attach-session -t "$1" && exit 120
exit 121`

// What the command of AttachCommand returns when tmux has ended by itself: it
// was detached, or the session ended; and when it could not attach.
const (
	AttachEnded  = 120
	AttachFailed = 121
)

// AttachCommand shows the session on a terminal of that kind.
func (t Target) AttachCommand(terminal string) []string {
	return []string{"/bin/sh", "-c", attachScript, "sandboxctl", t.exact(), terminal}
}

// TerminalFor returns the kind of a terminal, by its TERM, that an image knows:
// the images have the usual ones only, and the new ones are like xterm.
func TerminalFor(term string) string {
	switch term {
	case "xterm", "xterm-256color", "screen", "screen-256color", "tmux", "tmux-256color", "linux", "vt100", "vt220", "ansi", "rxvt":
		return term
	}
	return "xterm-256color"
}

// FollowCommand is tmux's arguments that attach to the session as a program
// does: what it says and is told is lines.
func (t Target) FollowCommand() []string {
	return []string{"-C", "attach-session", "-f", "ignore-size", "-t", Target{Session: t.Session}.exact()}
}
