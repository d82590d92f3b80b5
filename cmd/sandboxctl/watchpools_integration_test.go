//go:build integration

package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/agentpane/sandboxctl/reconcile/audit"
	"github.com/agentpane/sandboxctl/reconcile/clustertest"
)

// TestWatchKeepsPools: a pool is filled, and filled again when a program has
// claimed a pod, which goes when the claim runs out. All of it is in the log that
// both append to, and counted.
func TestWatchKeepsPools(t *testing.T) {
	r := newTrial(t)
	log := filepath.Join(t.TempDir(), "audit.log")
	file := r.file("pools: {p: {template: t, min: 1, max: 3, replenish: 1s, autoscale: false}}\n", "  {}\n")
	address := r.freeAddress()
	w := r.watch(file, "--audit-log", log, "--listen", address)
	w.settled()
	w.await("event", "ready", "msg", "agentpane-warm-p-")
	r.serves(address, "/healthz", "ok")
	r.serves(address, "/readyz", "ok")
	claimed := r.done(r.run("claim", "-f", file, "--pool", "p", "--project", "x", "--ttl", "5s", "-o", "json", "--audit-log", log))
	if !strings.Contains(claimed.stdout, `"origin": "warm"`) {
		t.Errorf("the claim did not get the warm pod: %s", claimed.stdout)
	}
	w.await("event", "claimed", "pool", "p", "msg", "was claimed by p-")
	w.await("event", "pool-changed", "pool", "p")
	w.await("event", "changed", "action", "delete", "msg", "ran out")
	w.settled()
	r.serves(address, "/metrics",
		`sandboxctl_claim_duration_seconds_count{fleet="trial",origin="warm",pool="p"} 1`,
		`sandboxctl_pool_pod_start_seconds_count{fleet="trial",pool="p"} `,
		`sandboxctl_pool_pods{fleet="trial",pool="p",state="claimed"} 0`,
		`sandboxctl_changes_total{action="create",fleet="trial",kind="Pod"} 2`,
		`sandboxctl_changes_total{action="delete",fleet="trial",kind="Pod"} 1`,
		`sandboxctl_reconcile_duration_seconds_bucket{fleet="trial",result="ok",le="0.0016"} `,
		`sandboxctl_settled_timestamp_seconds{fleet="trial"} `)
	w.end()
	if told := strings.Join(w.seen, "\n"); strings.Contains(told, `"event":"drift"`) {
		t.Errorf("what a claim asks for is no drift:\n%s", told)
	}
	r.noChanges(file)
	found := map[audit.Event]bool{}
	for _, record := range auditRecords(t, log) {
		found[record.Event] = true
	}
	for _, event := range []audit.Event{
		audit.WarmPoolDiscovery, audit.WarmPoolPodCreated, audit.WarmPoolPrewarm, audit.PodStarted, audit.WarmPoolAllocation, audit.PodDeleted,
	} {
		if !found[event] {
			t.Errorf("no %s in the log", event)
		}
	}
	if found[audit.WarmPoolPodDeleted] || found[audit.PodCreated] {
		t.Errorf("a pod is taken for another kind: %v", found)
	}
}

// TestWatchAndAPoolThatIsRefused: of a pool whose pods the server does not take it
// tells, and brings the others to their levels.
func TestWatchAndAPoolThatIsRefused(t *testing.T) {
	r := newTrial(t)
	pools := func(min int, selector string) (file string) {
		file = r.file(fmt.Sprintf("pools:\n  p: {template: t, min: %d, max: 3, autoscale: false}\n  q: {template: u, min: 1, max: 3, autoscale: false}\n", min), "  {}\n")
		content, err := os.ReadFile(file)
		r.must(err)
		other := "  u: {image: " + clustertest.SandboxImage + ", resources: {requests: {cpu: 10m, memory: 16Mi}}, pod: {nodeSelector: " + selector + "}}\nsandboxes:\n"
		r.must(os.WriteFile(file, []byte(strings.Replace(string(content), "sandboxes:\n", other, 1)), 0o600))
		return file
	}
	w := r.watch(pools(1, `{x: "a b"}`))
	w.await("event", "failed", "msg", "spec.nodeSelector")
	w.await("event", "ready", "msg", "agentpane-warm-p-")
	pools(2, `{x: "a b"}`)
	w.await("event", "pool-changed", "pool", "p", "msg", "1 → 2 warm")
	w.await("event", "ready", "msg", "agentpane-warm-p-")
	pools(2, "{}")
	w.await("event", "pool-changed", "pool", "q")
	w.settled()
	if n := strings.Count(strings.Join(w.seen, "\n"), `"pool":"q"`); n != 1 {
		t.Errorf("pool q is to be told of once, and was %d times:\n%s", n, strings.Join(w.seen, "\n"))
	}
}

// TestWatchAndAPoolThatANodeRefuses: its pods fail at once, each, and are made
// again no more often than makes sense.
func TestWatchAndAPoolThatANodeRefuses(t *testing.T) {
	r := newTrial(t)
	nodes, err := r.cluster.Client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	r.must(err)
	pod := "pod: {nodeName: " + nodes.Items[0].Name + ", nodeSelector: {no: such}}"
	file := r.file("", "  {}\n")
	content, err := os.ReadFile(file)
	r.must(err)
	pool := "pools: {p: {template: t, min: 1, max: 3, autoscale: false}}\nsandboxes:\n"
	r.must(os.WriteFile(file, []byte(strings.Replace(string(content), "sandboxes:\n", "    "+pod+"\n"+pool, 1)), 0o600))
	w := r.watch(file)
	at := func(record map[string]any) time.Time {
		told, err := time.Parse(time.RFC3339, record["time"].(string))
		r.must(err)
		return told
	}
	made := at(w.await("event", "changed", "kind", "Pod", "action", "create"))
	w.await("event", "not-ready", "msg", "NodeAffinity")
	if stood := at(w.await("event", "changed", "kind", "Pod", "action", "delete")).Sub(made); stood < 8*time.Second {
		t.Errorf("the first was deleted after %s", stood)
	}
	w.await("event", "changed", "kind", "Pod", "action", "create")
}

// freeAddress is an address of this machine that nobody listens on.
func (r trial) freeAddress() string {
	r.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	r.must(err)
	defer listener.Close()
	return listener.Addr().String()
}

// serves expects an answer of watch to hold the texts.
func (r trial) serves(address, path string, want ...string) {
	r.Helper()
	response, err := http.Get("http://" + address + path)
	r.must(err)
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	r.must(err)
	for _, text := range want {
		if response.StatusCode != http.StatusOK || !strings.Contains(string(content), text) {
			r.Errorf("%s: %s, and is to say %q:\n%s", path, response.Status, text, content)
		}
	}
}
