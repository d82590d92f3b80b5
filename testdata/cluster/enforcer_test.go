//go:build integration

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

// product is the project's program, as people use it on a cluster.
type product struct {
	*testing.T
	binary, dir, kubeconfig string
}

func newProduct(t *testing.T, c *cluster) product {
	t.Helper()
	p := product{t, filepath.Join(t.TempDir(), "sandboxctl"), t.TempDir(), c.kubeconfig()}
	if out, err := exec.Command("go", "-C", c.builder.Project, "build", "-o", p.binary, "./cmd/sandboxctl").CombinedOutput(); err != nil {
		t.Fatalf("building sandboxctl: %v\n%s", err, out)
	}
	return p
}

// fleet writes the file of a fleet whose sandboxes may reach one host, and
// returns what runs the program on it.
func (p product) fleet(name string) (run func(sandboxes string, args ...string) (out string, ok bool)) {
	file := filepath.Join(p.dir, name+".yaml")
	return func(sandboxes string, args ...string) (string, bool) {
		p.Helper()
		content := fmt.Sprintf(`apiVersion: agentpane.io/v1alpha1
kind: SandboxFleet
name: %[1]s
namespace: %[1]s
limits: {min: {cpu: 10m, memory: 16Mi}}
templates:
  t:
    image: docker.io/agentpane/agent-sandbox:dev
    resources: {cpu: 50m, memory: 32Mi}
    workspace: {emptyDir: 10Mi}
    egress: {allow: [{host: allowed.test}]}
sandboxes: %[2]s
`, name, sandboxes)
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			p.Fatal(err)
		}
		flags := []string{args[0], "--file", file, "--kubeconfig", p.kubeconfig}
		out, err := exec.Command(p.binary, append(flags, args[1:]...)...).CombinedOutput()
		return string(out), err == nil
	}
}

// TestKilledEnforcer is failure mode 19: while nothing enforces NetworkPolicy, no
// sandbox starts, whether an earlier verdict lets its pod be made or not, and
// nobody says that policies are enforced. When the enforcer is back, all is well.
func TestKilledEnforcer(t *testing.T) {
	const enforcer = "kube-network-policies"
	l := newLifecycle(t)
	l.run(t, "up")
	p := newProduct(t, l.cluster)
	known, unknown := p.fleet("known"), p.fleet("unknown")
	const one, two = "{a: {template: t}}", "{a: {template: t}, b: {template: t}}"
	want := func(ok bool, words string) func(string, bool) {
		return func(out string, done bool) {
			t.Helper()
			if done != ok || !strings.Contains(out, words) {
				t.Errorf("done: %t, want %t and %q:\n%s", done, ok, words, out)
			}
		}
	}
	want(true, "ready")(known(one, "apply", "--yes"))
	want(true, "made in")(unknown("{}", "apply", "--yes"))
	begun := time.Now()

	// What it has set up drops every new connection while it is away.
	l.killAll(t, enforcer)
	want(true, "created")(known(two, "apply", "--yes", "--no-wait")) // by the verdict of its first apply
	want(false, "K8S_NETWORK_ISOLATION_UNSUPPORTED: it cannot be told whether the cluster enforces NetworkPolicy")(unknown(one, "apply", "--yes"))

	// Now everything is open, as on nodes whose enforcer never came.
	if err := l.node.Shell("iptables -t mangle -F POSTROUTING"); err != nil {
		t.Fatal(err)
	}
	want(false, `"verdict": "not enforced"`)(unknown(one, "doctor", "-o", "json"))
	want(false, "K8S_POD_NOT_FOUND")(unknown(one, "exec", "a", "--", "true"))
	want(false, "K8S_POD_NOT_RUNNING")(known(two, "exec", "b", "--", "true"))

	l.run(t, "start", enforcer)
	want(true, "no changes")(known(two, "apply", "--yes")) // which waits until b is ready
	want(true, "")(known(two, "exec", "b", "--", "true"))
	want(true, `"verdict": "enforced"`)(unknown("{}", "doctor", "-o", "json"))
	t.Logf("it took %s from the kill on", time.Since(begun).Round(time.Second))
}
