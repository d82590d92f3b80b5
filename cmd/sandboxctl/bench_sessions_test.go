//go:build bench

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sessionsFile writes a fleet of n sandboxes with three sessions each, whose
// panes run that.
func sessionsFile(b *testing.B, path string, n int, command string) {
	b.Helper()
	var file strings.Builder
	file.WriteString(`apiVersion: agentpane.io/v1alpha1
kind: SandboxFleet
name: bench-sessions
namespace: sandboxctl-bench-sessions
limits: {min: {cpu: 1m, memory: 4Mi}}
templates:
  t:
    image: docker.io/agentpane/agent-sandbox:dev
    resources: {cpu: 200m, memory: 64Mi, requests: {cpu: 1m, memory: 4Mi}}
    workspace: {emptyDir: 10Mi}
sandboxes:
`)
	for i := range n {
		fmt.Fprintf(&file, "  s%03d:\n    template: t\n    sessions:\n", i)
		for j := range 3 {
			fmt.Fprintf(&file, "      agent-%d: {windows: [{window_name: main, panes: [%q]}]}\n", j, command)
		}
	}
	if err := os.WriteFile(path, []byte(file.String()), 0o644); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkSessions reconciles 200 sandboxes with three sessions each: when
// nothing differs, which takes no look into any, and when each of them does.
func BenchmarkSessions(b *testing.B) {
	const sandboxes = 200
	sandboxctl := program(b)
	file := filepath.Join(b.TempDir(), "sandboxes.yaml")
	sessionsFile(b, file, sandboxes, "exec sleep 86400")
	b.Cleanup(func() { timed(b, sandboxctl, "destroy", "--yes", "-f", file) })
	timed(b, sandboxctl, "apply", "--yes", "--timeout", "20m", "-f", file)
	var same, differ time.Duration
	round := 0
	for b.Loop() {
		took, _ := timed(b, sandboxctl, "plan", "--detailed-exitcode", "-f", file)
		same += took
		round++
		sessionsFile(b, file, sandboxes, fmt.Sprintf("exec sleep %d", 86400+round))
		took, _ = timed(b, sandboxctl, "apply", "--yes", "--no-wait", "-f", file)
		differ += took
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(same.Seconds()/float64(b.N), "s/plan-of-the-same")
	b.ReportMetric(differ.Seconds()/float64(b.N), "s/apply-to-all")
}

// BenchmarkExec compares the round trip of a command with kubectl's.
func BenchmarkExec(b *testing.B) {
	sandboxctl := program(b)
	file := filepath.Join(b.TempDir(), "sandboxes.yaml")
	sessionsFile(b, file, 1, "exec sleep 86400")
	b.Cleanup(func() { timed(b, sandboxctl, "destroy", "--yes", "-f", file) })
	timed(b, sandboxctl, "apply", "--yes", "-f", file)
	find := exec.Command("kubectl", "get", "pods", "--namespace", "sandboxctl-bench-sessions", "--output", "name")
	find.Env = append(os.Environ(), "KUBECONFIG="+os.Getenv("SANDBOXCTL_TEST_KUBECONFIG"))
	pod, err := find.Output()
	if err != nil {
		b.Fatal(err)
	}
	var ours, theirs time.Duration
	for b.Loop() {
		took, _ := timed(b, sandboxctl, "exec", "-f", file, "s000", "--", "true")
		ours += took
		took, _ = timed(b, "kubectl", "exec", "--namespace", "sandboxctl-bench-sessions", strings.TrimSpace(string(pod)), "--", "true")
		theirs += took
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(ours.Milliseconds())/float64(b.N), "ms/exec")
	b.ReportMetric(float64(theirs.Milliseconds())/float64(b.N), "ms/kubectl-exec")
}
