// Package session says what has to happen so that a sandbox's tmux sessions are
// as the file says. What is wanted ([Desired]) is compared with what tmux
// reports ([State], read by [Parse]); out of the two come the changes for
// people to read and, from the same pass, the command file that tmux makes them
// by ([Make]). The package is pure: it never talks to a cluster or to tmux,
// and never prints.
//
// What tmux reports comes out of the sandbox, and whoever works there can make
// it say anything: it decides about that sandbox's sessions and nothing else.
package session

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/agentpane/sandboxctl/schema"
)

// Desired is what the file says of one sandbox's terminals.
type Desired struct {
	// Sessions are sorted by name.
	Sessions []schema.Session `json:"sessions,omitempty"`
	// Environment is that of the sandbox as far as its container did not get
	// it when it started, as a pod out of a warm pool does not. It is set in
	// tmux's global environment, which every session and pane inherits. This is
	// the one place for it.
	Environment map[string]string `json:"environment,omitempty"`
}

// With returns what is wanted in a container that did not get these variables
// when it started. They are for the declared sessions: where there are none,
// tmux is nobody's business.
func (d Desired) With(environment map[string]string) Desired {
	if len(d.Sessions) > 0 {
		d.Environment = environment
	}
	return d
}

// Empty tells whether nothing is declared.
func (d Desired) Empty() bool { return len(d.Sessions)+len(d.Environment) == 0 }

// Hash tells one desired state from another; it is empty for the empty one.
// Which window and pane have the focus is no part of it: that is for the
// moment in which they are made.
func (d Desired) Hash() string {
	if d.Empty() {
		return ""
	}
	return digest(d.environmentHash(), func() (sessions []any) {
		for i := range d.Sessions {
			s := &d.Sessions[i]
			sessions = append(sessions, s.Name, sessionHash(s))
			for j := range s.Windows {
				w := &s.Windows[j]
				sessions = append(sessions, windowKey(w.Name), w.Layout)
				for k := range w.Panes {
					sessions = append(sessions, d.paneHash(s, &w.Panes[k]))
				}
			}
		}
		return sessions
	}())
}

func (d Desired) environmentHash() string {
	if len(d.Environment) == 0 {
		return ""
	}
	return digest(d.Environment)
}

// sessionHash is of what belongs to a session as a whole.
func sessionHash(s *schema.Session) string { return digest(s.StartDirectory, s.Environment) }

// windowKey stands for a window's name in a tmux option: names may hold
// anything.
func windowKey(name string) string { return digest(name) }

// paneHash is of all that a pane's process is started with: where one of these
// changes, it has to be started anew.
func (d Desired) paneHash(s *schema.Session, p *schema.Pane) string {
	return digest(d.Environment, s.Environment, p.Environment, p.StartDirectory, argv(p))
}

// digest is 64 bits of a hash of the parts, in hexadecimal.
func digest(parts ...any) string {
	encoded, err := json.Marshal(parts) // sorts the keys of maps
	if err != nil {
		panic(err) // strings, lists and maps of strings always can be encoded
	}
	sum := sha256.Sum256(encoded)
	return hex.EncodeToString(sum[:8])
}

const taskPrefix = "agent-"

// TaskOf returns the task of an agent's session; empty for any other session.
func TaskOf(name string) string {
	task, ok := strings.CutPrefix(name, taskPrefix)
	if !ok {
		return ""
	}
	return task
}

// The texts below are all that a shell ever gets to read as a program. What is
// the user's reaches it as positional parameters.
const (
	// plainScript runs a program ($2 and on) in a directory ($1). tmux itself
	// would go elsewhere where there is no such directory, without a word. It can
	// also drop what was printed in the moment of the end: so a reason is left to
	// stand for a second.
	plainScript = `trap 'sleep 1' EXIT; cd -- "$1" || exit 1; shift; exec "$@"`
	// lineScript runs a command line ($1) in the sandbox's own shell.
	lineScript = `exec "${SHELL:-/bin/sh}" -c "$1"`
	// shellScript is a shell to type in, as tmux starts one by itself.
	shellScript = `exec "${SHELL:-/bin/sh}" -l`
	// restartScript runs a program ($3 and on) in a directory ($2), and again
	// when it has ended: always, or ($1) on-failure. It waits a second, then
	// two, then four and so on up to five minutes, as the kubelet does, and
	// begins with a second again after ten minutes of running. An interrupt
	// from the keyboard ends the program or the wait, and not the supervision.
	restartScript = `trap 'sleep 1' EXIT; policy=$1; cd -- "$2" || exit 1; shift 2
trap : INT QUIT
pause=1; count=0
while :; do
  begun=$(date +%s)
  (exec "$@"); code=$?
  if [ "$policy" = on-failure ] && [ "$code" -eq 0 ]; then exit 0; fi
  if [ $(($(date +%s) - begun)) -ge 600 ]; then pause=1; fi
  count=$((count + 1))
  tmux set-option -p -t "$TMUX_PANE" @sandboxctl-restarts "$count" 2>/dev/null
  printf '\r\n[ended with exit status %s; starts again in %ss]\r\n' "$code" "$pause"
  sleep "$pause"
  pause=$((pause * 2)); if [ "$pause" -gt 300 ]; then pause=300; fi
done`
)

// argv is the program that tmux starts in a pane, and its arguments. It has
// more than one word always: of a single one tmux makes a command line.
func argv(p *schema.Pane) []string {
	shell := func(script string, parameters ...string) []string {
		return append([]string{"/bin/sh", "-c", script, "sandboxctl"}, parameters...)
	}
	command := p.Argv
	switch {
	case p.Shell != "":
		command = shell(lineScript, p.Shell)
	case len(p.Argv) == 0:
		command = shell(shellScript)
		if p.Restart == schema.Never || p.Restart == "" { // without a directory, there is still a shell
			return command
		}
	}
	if p.Restart == schema.OnFailure || p.Restart == schema.Always {
		return shell(restartScript, append([]string{string(p.Restart), p.StartDirectory}, command...)...)
	}
	return shell(plainScript, append([]string{p.StartDirectory}, command...)...)
}

// aShell is what a pane without a command is called.
const aShell = "a shell"

// commandText is a pane's command for people, as one short line.
func commandText(p *schema.Pane) string {
	text := p.Shell
	if len(p.Argv) > 0 {
		text = strings.Join(p.Argv, " ")
	}
	if text == "" {
		return aShell
	}
	return short(text)
}

// short is text as one line that is not too long.
func short(text string) string {
	const longest = 80
	runes := []rune(strings.Join(strings.Fields(text), " "))
	if len(runes) > longest {
		return string(runes[:longest-1]) + "…"
	}
	return string(runes)
}

// encodeText and decodeText carry a text through a tmux option.
func encodeText(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

func decodeText(option string) string {
	text, err := base64.RawURLEncoding.DecodeString(option)
	if err != nil {
		return ""
	}
	return short(strings.ToValidUTF8(string(text), "?"))
}

func names(environment map[string]string) []string {
	return slices.Sorted(maps.Keys(environment))
}
