//go:build integration

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/agentpane/sandboxctl/reconcile/clustertest"
)

// TestSessionsOutput: what a sandbox prints is long, and no text.
func TestSessionsOutput(t *testing.T) {
	s := newShell(t)
	s.declareSessions(`      agent: {windows: [{window_name: main, panes: [cat, bash]}]}` + "\n")
	s.apply()
	s.expect(0, "", "", "session", "send", "api", "agent:main.0", "--enter", `it's $HOME; "#{pid}"`, "\\n;")
	want := `it's $HOME; "#{pid}" \n;` + "\n"
	clustertest.Eventually(t, "cat has repeated it", func(context.Context) bool {
		return s.run("session", "capture", "api", "agent:main.0").stdout == want+want
	})
	s.expect(0, `"lines": [`, "", "session", "capture", "api", "agent:main.0", "-o", "json", "--lines", "1")
	s.expect(1, "", "K8S_TMUX_SESSION_NOT_FOUND: sandbox api has no session agent:none: can't find window", "session", "capture", "api", "agent:none")
	s.expect(1, "", "K8S_TMUX_SESSION_NOT_FOUND: sandbox api has no session nope", "session", "send", "api", "nope", "x")

	// 10 MB, invalid UTF-8 and sequences that a terminal would obey.
	s.expect(0, "", "", "session", "send", "api", "agent:main.1", "--enter",
		`clear; head -c 10000000 /dev/zero | tr '\0' x | fold -w 100; printf 'a\xffb\033]0;title\007\033[2Jc\n'; printf '%s\n' do''ne`)
	clustertest.Eventually(t, "all is printed", func(context.Context) bool {
		return strings.Contains(s.run("session", "capture", "api", "agent:main.1").stdout, "\ndone\n")
	})
	got := s.run("session", "capture", "api", "agent:main.1", "--lines", "1000000")
	if got.code != 0 || strings.ContainsAny(got.stdout, "\x1b\x07") || !utf8.ValidString(got.stdout) || len(got.stdout) > captureLimit {
		t.Errorf("%d, %d bytes, %q", got.code, len(got.stdout), got.stdout[max(0, len(got.stdout)-200):])
	}
}

// TestSessionSend: what is typed is typed into the pane that was named, by however
// many at once; and a pane whose command has ended takes nothing, and harms nobody.
func TestSessionSend(t *testing.T) {
	s := newShell(t)
	s.declareSessions(`      dead: {windows: [{window_name: main, panes: ["exit 3"]}]}
      a: {windows: [{window_name: main, panes: [cat]}]}
      b: {windows: [{window_name: main, panes: [cat]}]}
` + "")
	s.apply()
	const ended = "K8S_TMUX_SESSION_NOT_FOUND: the command in dead:main of sandbox api has ended"
	clustertest.Eventually(t, "the command has ended", func(context.Context) bool {
		return s.run("session", "send", "api", "dead:main", "--enter").code != 0
	})
	s.expect(1, "", ended, "session", "send", "api", "dead:main", "x")
	s.expect(1, "", ended, "session", "send", "api", "dead:main", "--enter", "x")
	s.expect(0, "", "", "exec", "api", "--", "tmux", "copy-mode", "-t", "a") // somebody looks back in it
	var all sync.WaitGroup
	const count = 10
	for i := range count {
		for _, name := range []string{"a", "b"} {
			all.Go(func() {
				if got := s.run("session", "send", "api", name, "--enter", fmt.Sprintf("%s %d", name, i)); got.code != 0 {
					t.Errorf("%d: %s", got.code, got.stderr)
				}
			})
		}
	}
	all.Wait()
	for _, name := range []string{"a", "b"} {
		clustertest.Eventually(t, "all is typed into "+name, func(context.Context) bool {
			lines := strings.Split(strings.TrimSpace(s.run("session", "capture", "api", name).stdout), "\n")
			return len(lines) == 2*count && !slices.ContainsFunc(lines, func(line string) bool { return !strings.HasPrefix(line, name+" ") })
		})
	}
	if got := s.inside("tmux list-buffers"); got != "" {
		t.Errorf("what was typed is left behind: %s", got)
	}
	s.expect(0, "no changes", "", "plan", "--full")
}

// TestSessionFollow: what is printed comes as it is printed, without what a
// terminal would obey.
func TestSessionFollow(t *testing.T) {
	s := newShell(t)
	s.declareSessions(`      agent: {windows: [{window_name: main, panes: [{shell_command: [sh, -c, "echo first; stty -echo; while read line; do printf '\\033[31m%s\\033[0m\\n' \"got $line\"; done"]}]}]}` + "\n")
	s.apply()
	reader := s.following("session", "capture", "api", "agent", "--follow")
	reader.expect("first\n")
	for i := range 3 {
		s.expect(0, "", "", "session", "send", "api", "agent", "--enter", fmt.Sprintf("line %d", i))
		reader.expect(fmt.Sprintf("got line %d\r\n", i))
	}
	s.expect(0, "", "", "session", "kill", "api", "agent")
	if got := <-reader.ended; got.code != 0 {
		t.Errorf("following it to its end: %+v", got)
	}
	s.expect(1, "", "K8S_TMUX_SESSION_NOT_FOUND: sandbox api has no session none", "session", "capture", "api", "none", "--follow")
}
