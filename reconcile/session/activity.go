package session

import (
	"strconv"
	"strings"
	"time"
)

// activityScript runs tmux with the parameters after $1, and says of each client
// that shows a session, by its process, that it is there. A client of attach,
// which has the variable $1, is left out: while it is used its pod says so, and
// nothing in the sandbox tells one whose connection is lost, which no runtime
// ends, from one at which somebody looks.
const activityScript = `mark=$1; shift
tmux "$@" || exit
tmux list-clients -F '#{client_pid}' | while read -r pid; do
  grep -q "$mark=" "/proc/$pid/environ" 2>/dev/null || echo c
done`

// ActivityCommand is the command that prints what ParseActivity reads: of each
// session when somebody last typed in it, of each window when something was last
// printed in it, and a line for each client but those whose environment has the
// mark.
func ActivityCommand(mark string) []string {
	return []string{
		"/bin/sh", "-c", activityScript, "sandboxctl", mark,
		"list-sessions", "-F", format("s", "session_activity"), ";",
		"list-windows", "-a", "-F", format("w", "window_activity"),
	}
}

// ParseActivity is when something last happened in the sessions: now, while a
// client shows one. It is zero where there is none; lines that cannot be read
// say nothing.
func ParseActivity(output string, now time.Time) (last time.Time) {
	for line := range strings.Lines(output) {
		kind, at, _ := strings.Cut(strings.TrimSpace(line), fieldSeparator)
		switch kind {
		case "c":
			return now
		case "s", "w":
			if seconds, err := strconv.ParseInt(at, 10, 64); err == nil && time.Unix(seconds, 0).After(last) {
				last = time.Unix(seconds, 0)
			}
		}
	}
	return last
}
