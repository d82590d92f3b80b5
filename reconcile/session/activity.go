package session

import (
	"strconv"
	"strings"
	"time"
)

// ActivityCommand is the command that prints what ParseActivity reads: of each
// session how many clients show it and when one of them last did something, of
// each window when something was last printed in it.
func ActivityCommand() []string {
	return []string{
		"tmux", "list-sessions", "-F", format("s", "session_attached", "session_activity"), ";",
		"list-windows", "-a", "-F", format("w", "window_activity"),
	}
}

// ParseActivity is when something last happened in the sessions: now, while a
// client shows one. It is zero where there is none; lines that cannot be read
// say nothing.
func ParseActivity(output string, now time.Time) (last time.Time) {
	for line := range strings.Lines(output) {
		fields := strings.Split(strings.TrimSpace(line), fieldSeparator)
		switch {
		case fields[0] == "s" && len(fields) == 3:
			if attached, err := strconv.Atoi(fields[1]); err == nil && attached > 0 {
				return now
			}
		case fields[0] == "w" && len(fields) == 2:
		default:
			continue
		}
		if seconds, err := strconv.ParseInt(fields[len(fields)-1], 10, 64); err == nil {
			if at := time.Unix(seconds, 0); at.After(last) {
				last = at
			}
		}
	}
	return last
}
