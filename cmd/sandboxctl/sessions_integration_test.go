//go:build integration

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/agentpane/sandboxctl/reconcile/clustertest"
	"github.com/agentpane/sandboxctl/reconcile/session"
	"github.com/agentpane/sandboxctl/render"
)

// declareSessions declares sandbox api with sessions.
func (s *shell) declareSessions(sessions string) {
	s.Helper()
	s.declare("  api:\n    template: t\n    sessions:\n" + sessions)
}

// inside runs a command line in sandbox api and returns what it prints.
func (s *shell) inside(command string) string {
	s.Helper()
	got := s.run("exec", "api", "--", "sh", "-c", command)
	if got.code != 0 {
		s.Fatalf("%s: %d\n%s", command, got.code, got.stderr)
	}
	return got.stdout
}

// pod is the only pod of the fleet.
func (s *shell) pod(ctx context.Context) *corev1.Pod {
	s.Helper()
	pods, err := s.cluster.Client.CoreV1().Pods(s.namespace).List(ctx, metav1.ListOptions{LabelSelector: render.SandboxIDLabel + "=api"})
	if err != nil || len(pods.Items) != 1 {
		s.Fatalf("%d pods, %v", len(pods.Items), err)
	}
	return &pods.Items[0]
}

func (s *shell) sessions() map[string]sessionInfo {
	s.Helper()
	got := s.run("session", "ls", "-o", "json")
	var info sessionsInfo
	if err := json.Unmarshal([]byte(got.stdout), &info); err != nil || got.code != 0 {
		s.Fatalf("session ls: %d, %v\n%s%s", got.code, err, got.stdout, got.stderr)
	}
	byName := map[string]sessionInfo{}
	for _, one := range info.Sessions {
		byName[one.Name] = one
	}
	return byName
}

// killContainer ends the sandbox's first process, and waits until its container
// runs anew.
func (s *shell) killContainer() {
	s.Helper()
	before := s.pod(s.Context()).Status.ContainerStatuses[0].RestartCount
	s.run("exec", "api", "--", "sh", "-c", "kill -TERM 1")
	clustertest.Eventually(s.T, "the container runs anew", func(ctx context.Context) bool {
		status := s.pod(ctx).Status.ContainerStatuses[0]
		return status.RestartCount > before && status.State.Running != nil
	})
}

// counting is a pane's command that leaves a line in a file each time that it
// is started, and then goes on to run.
func counting(name string) string {
	return fmt.Sprintf("echo started >>/workspace/%s; exec sleep 86400", name)
}

func (s *shell) started(name string) int {
	s.Helper()
	return strings.Count(s.inside("cat /workspace/"+name+" 2>/dev/null || true"), "started")
}

// TestSessionLifeCycle: sessions become what the file says, by changes as small
// as can be; and what was started is started once.
func TestSessionLifeCycle(t *testing.T) {
	s := newShell(t)
	before := fmt.Sprintf(`      agent:
        environment: {GREETING: "hello #{pid}; $HOME"}
        windows:
        - window_name: main
          layout: main-horizontal
          panes: [%q, %q, {shell_command: [sh, -c, "echo $GREETING $MORE >/workspace/env; pwd >>/workspace/env; exit 3"], environment: {MORE: more}, start_directory: /tmp}]
        - window_name: notes
      other: {windows: [{window_name: w, panes: [%q]}]}
`, counting("a"), counting("b"), counting("other"))
	s.declareSessions(before)
	s.expect(0, "+ session api/agent will be created", "", "plan")
	s.apply()
	s.expect(0, "no changes", "", "plan")
	s.expect(0, "no changes", "", "plan", "--full")
	if got := s.inside("cat /workspace/env"); got != "hello #{pid}; $HOME more\n/tmp\n" {
		t.Errorf("a pane's environment and directory: %q", got)
	}
	s.expect(0, "api: agent:main.2 ended with exit status 3: sh -c echo $GREETING", "", "status", "--sessions")

	t.Run("what people make", func(t *testing.T) {
		s := s.with(t)
		s.inside("tmux new-session -d -s mine 'sleep 86400'; tmux new-window -d -t =agent: -n theirs 'sleep 86400'")
		s.expect(0, "no changes", "", "plan", "--full")
		mine := s.sessions()["mine"]
		if mine.Declared || mine.Managed || !mine.Present || s.sessions()["agent"].Windows != 3 {
			t.Errorf("it is %+v", mine)
		}
	})
	t.Run("an edit", func(t *testing.T) {
		s := s.with(t)
		s.declareSessions(strings.Replace(strings.Replace(before, "/workspace/b;", "/workspace/c;", 1),
			"        - window_name: notes\n      other: {windows: [{window_name: w", "        - window_name: more\n      third: {windows: [{window_name: w", 1))
		plan := uncoloured(s.run("plan").stdout)
		for _, want := range []string{
			"~ pane api/agent:main.1 will be changed: it is started anew: " + counting("b") + " → " + counting("c") + "; ends: " + counting("b") + ", running for ",
			"+ window api/agent:more will be created", "- window api/agent:notes will be ended: it is no longer in the file",
			"+ session api/third will be created", "- session api/other will be ended: it is no longer in the file; ends: " + counting("other"),
			"Plan: 9 unchanged, 5 changes of tmux sessions.",
		} {
			if !strings.Contains(plan, want) {
				t.Errorf("the plan lacks %q:\n%s", want, plan)
			}
		}
		s.expect(0, "::warning file=", "", "plan", "-o", "github")
		s.expect(0, "| `-` | `session api/other` |", "", "plan", "-o", "markdown")
		s.expect(0, `"kind": "pane"`, "", "plan", "-o", "json")
		saved := s.TempDir() + "/fleet.plan"
		s.expect(2, "", "", "plan", "--detailed-exitcode", "--out", saved)
		if got := run(s.Context(), []string{"apply", saved, "--kubeconfig", kubeconfig()}, s.environment(nil, nil)); got != 0 {
			t.Errorf("applying the saved plan: %d", got)
		}
		s.expect(0, "no changes", "", "plan", "--full")
		for name, want := range map[string]int{"a": 1, "b": 1, "c": 1, "other": 2} { // "other" runs in two sessions, one after the other
			if got := s.started(name); got != want {
				t.Errorf("%s was started %d times, not %d", name, got, want)
			}
		}
		if got := s.inside("tmux list-sessions -F '#{session_name}'; tmux list-windows -t =agent: -F '#{window_name}'"); got != "agent\nmine\nthird\nmain\nmore\ntheirs\n" {
			t.Errorf("there are %q", got)
		}
	})
	t.Run("a container that starts anew", func(t *testing.T) {
		s := s.with(t)
		s.killContainer()
		s.expect(0, "0/2", "", "status")
		s.expect(0, "Plan: 9 unchanged, 2 changes of tmux sessions.", "", "plan")
		s.apply()
		s.expect(0, "no changes", "", "plan")
		s.expect(0, "no changes", "", "plan", "--full")
		for name, want := range map[string]int{"a": 2, "c": 2, "other": 3} {
			if got := s.started(name); got != want {
				t.Errorf("%s was started %d times, not %d", name, got, want)
			}
		}
	})
	t.Run("somebody ends one", func(t *testing.T) {
		s := s.with(t)
		s.expect(0, "", "Session third of sandbox api has ended", "session", "kill", "api", "third")
		s.expect(1, "", "K8S_TMUX_SESSION_NOT_FOUND: sandbox api has no session third", "session", "kill", "api", "third")
		s.expect(0, "yes, and not there", "", "session", "ls")
		s.expect(0, "+ session api/third will be created", "", "plan", "--full")
	})
	t.Run("a name that is taken", func(t *testing.T) {
		s := s.with(t)
		s.inside("tmux new-session -d -s taken 'sleep 86400'")
		s.declareSessions("      taken: {}\n      agent: {}\n")
		s.expect(1, "! session api/taken cannot be done", "K8S_TMUX_SESSION_EXISTS: sandbox api: session taken is there", "plan")
		s.expect(1, "", "K8S_TMUX_SESSION_EXISTS", "apply", "--yes")
		s.expect(0, "+ session api/taken will be adopted", "", "plan", "--adopt")
		if got := s.run("apply", "--yes", "--adopt"); got.code != 0 {
			t.Errorf("adopting it: %+v", got)
		}
		s.expect(0, "no changes", "", "plan", "--full")
	})
	t.Run("none any more", func(t *testing.T) {
		s := s.with(t)
		s.declare("  api: {template: t}\n")
		s.apply()
		s.expect(0, "no changes", "", "plan")
		if value, ok := s.pod(s.Context()).Annotations[session.NoteAnnotation]; ok {
			t.Errorf("the pod still says %s", value)
		}
	})
}

func kubeconfig() string { return os.Getenv("SANDBOXCTL_TEST_KUBECONFIG") }

// TestSessionsOfHostileFiles: names and commands with all that shells and tmux
// give a meaning to arrive as they are.
func TestSessionsOfHostileFiles(t *testing.T) {
	s := newShell(t)
	hostile := `'"\ #{pid} #(touch /workspace/pwned) $(touch /workspace/pwned) ` + "`touch /workspace/pwned`" + ` ; kill-server ; ~ %d {a} | & é`
	quoted, err := json.Marshal(hostile)
	if err != nil {
		t.Fatal(err)
	}
	window, err := json.Marshal(strings.NewReplacer(".", "", ":", "").Replace(hostile[:40]))
	if err != nil {
		t.Fatal(err)
	}
	s.declareSessions(fmt.Sprintf(`      agent:
        environment: {V: %[1]s}
        windows:
        - window_name: %[2]s
          panes: [{shell_command: [sh, -c, "printf '%%s\\n' \"$V\" \"$1\" >/workspace/out", x, %[1]s]}, {shell_command: [sh, -c, "printf '%%s' \"$0\" >/workspace/lines", "  a\n  # b\n;"]}, {shell_command: ["true"]}, {shell_command: [missing-program], start_directory: /workspace}]
        - {window_name: ";", start_directory: "/workspace/#{pid} 'x'", panes: ["pwd > /workspace/never"]}
`, quoted, window))
	s.apply()
	s.expect(0, "no changes", "", "plan", "--full")
	if got := s.inside("cat /workspace/out"); got != hostile+"\n"+hostile+"\n" {
		t.Errorf("a variable and an argument arrive as\n%q, not\n%q", got, hostile)
	}
	if got := s.inside("cat /workspace/lines"); got != "  a\n  # b\n;" {
		t.Errorf("lines arrive as %q", got)
	}
	if got := s.inside("ls /workspace"); got != "lines\nout\n" {
		t.Errorf("there are files %q", got)
	}
	s.expect(0, "ended with exit status 127: missing-program", "", "status", "--sessions")
	s.expect(0, "can't cd to /workspace/#{pid} 'x'", "", "status", "--sessions")
}

// TestSessionsRestart: a command that is to be restarted is, by the sandbox
// itself, and is counted.
func TestSessionsRestart(t *testing.T) {
	s := newShell(t)
	s.declareSessions(`      agent:
        windows:
        - window_name: main
          panes:
          - {shell_command: "echo started >>/workspace/fails; exit 1", restart: on-failure}
          - {shell_command: [sh, -c, "echo started >>/workspace/ends"], restart: on-failure}
          - {shell_command: [sh, -c, "echo started >>/workspace/always"], restart: always}
          - "echo started >>/workspace/never; exit 1"
` + "")
	s.apply()
	clustertest.Eventually(t, "what fails was started three times", func(context.Context) bool { return s.started("fails") >= 3 && s.started("always") >= 3 })
	if ends, never := s.started("ends"), s.started("never"); ends != 1 || never != 1 {
		t.Errorf("what succeeds was started %d times, what is never to be, %d", ends, never)
	}
	panes := s.sessions()["agent"].Panes
	if panes[0].Restarts < 2 || panes[0].Dead || !panes[1].Dead || *panes[1].ExitStatus != 0 || !panes[3].Dead || *panes[3].ExitStatus != 1 {
		t.Errorf("the panes are %+v", panes)
	}
	s.expect(0, "no changes", "", "plan", "--full")
}

// TestSessionsWithoutRoom: a pane for which there is no room is not there, and no
// other is taken for it.
func TestSessionsWithoutRoom(t *testing.T) {
	s := newShell(t)
	panes := func(names ...string) {
		var commands []string
		for _, name := range names {
			commands = append(commands, fmt.Sprintf("%q", counting(name)))
		}
		s.declareSessions("      agent: {windows: [{window_name: main, panes: [" + strings.Join(commands, ", ") + "]}]}\n")
	}
	panes("first")
	s.apply()
	s.inside("tmux resize-window -t agent -x 6 -y 2")
	panes("first", "second")
	s.expect(1, "", "no space for new pane", "apply", "--yes")
	s.inside("tmux resize-window -t agent -x 80 -y 24")
	s.apply()
	clustertest.Eventually(t, "the second pane is there", func(context.Context) bool { return s.started("second") == 1 })
	if n := s.started("first"); n != 1 {
		t.Errorf("the first pane's command was started %d times", n)
	}
	s.expect(0, "no changes", "", "plan", "--full")
}

// TestSessionsWithoutTmux: an image without tmux is told of, and all else works.
func TestSessionsWithoutTmux(t *testing.T) {
	s := newShell(t)
	s.declareSessions(`      agent: {}
    env: {PATH: /none}
    pod: {containers: [{name: sandbox, command: [/bin/sleep, infinity]}]}
  fine: {template: t, sessions: {agent: {}}}
`)
	const missing = "K8S_TMUX_CREATION_FAILED: the image of sandbox api has no tmux"
	s.expect(1, "", missing, "apply", "--yes")
	s.expect(1, "! sessions of api cannot be done", missing, "plan")
	s.expect(1, "yes", missing, "status", "--sessions")
	s.expect(1, "", missing, "session", "ls", "api")
	s.expect(1, "", "K8S_TMUX_CREATION_FAILED", "session", "send", "api", "agent", "x")
	s.expect(0, "fine", "", "session", "ls", "fine")
	s.expect(0, "ok\n", "", "exec", "api", "--", "/bin/echo", "ok")
}

// TestSessionsByTwo: of two who bring the same sessions about at once, each ends
// well, and every command is started once.
func TestSessionsByTwo(t *testing.T) {
	s := newShell(t)
	s.declare("  api: {template: t}\n")
	s.apply()
	for round := range 5 {
		name := fmt.Sprintf("s%d", round)
		s.declareSessions(fmt.Sprintf("      %s: {windows: [{window_name: w, panes: [%q, %q]}]}\n", name, counting(name), counting(name)))
		results := make(chan ran, 3)
		for range cap(results) {
			go func() { results <- s.run("apply", "--yes") }()
		}
		for range cap(results) {
			if got := <-results; got.code != 0 {
				t.Errorf("round %d: %d\n%s", round, got.code, got.stderr)
			}
		}
		if got := s.started(name); got != 2 {
			t.Errorf("round %d: started %d times, not twice", round, got)
		}
		s.expect(0, "no changes", "", "plan")
	}
}

// TestSessionsOverBrokenConnections: wherever the connection of the change
// breaks, the command is started once, and the next apply finds it so.
func TestSessionsOverBrokenConnections(t *testing.T) {
	s := newShell(t)
	s.declare("  api: {template: t}\n")
	s.apply()
	proxy, config := through(t)
	free, broken := byteLimits{noLimit, noLimit}, 0
	for round, limits := range cuts() {
		name := fmt.Sprintf("s%d", round)
		s.declareSessions(fmt.Sprintf("      %s: {windows: [{window_name: w, panes: [%q]}]}\n", name, counting(name)))
		proxy.mutex.Lock()
		proxy.limits = []byteLimits{free, limits} // the look of the plan, the change
		proxy.mutex.Unlock()
		got := run(s.Context(), []string{"apply", "--yes", "--file", s.file, "--kubeconfig", config}, s.environment(nil, nil))
		proxy.mutex.Lock()
		if len(proxy.limits) > 0 {
			t.Errorf("round %d: no connection was broken", round)
		}
		proxy.limits = nil
		proxy.mutex.Unlock()
		if started := s.started(name); got == 0 && started != 1 {
			t.Errorf("round %d, %+v: it says that all is well, and the command was started %d times", round, limits, started)
		}
		if got != 0 {
			broken++
		}
		s.apply()
		if started := s.started(name); started != 1 {
			t.Errorf("round %d, %+v: started %d times", round, limits, started)
		}
		s.expect(0, "no changes", "", "plan")
	}
	t.Logf("%d of %d applies were not done at once", broken, len(cuts()))
}

// cuts are places in a connection: before anything was said, in the handshake,
// in the request, in the command file, in the answer.
func cuts() []byteLimits {
	var all []byteLimits
	for up := int64(0); up <= 9000; up += 1500 {
		all = append(all, byteLimits{up, noLimit})
	}
	for down := int64(0); down <= 3000; down += 600 {
		all = append(all, byteLimits{noLimit, down})
	}
	return all
}
