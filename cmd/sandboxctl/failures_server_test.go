//go:build integration

package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/sandbox"
	"github.com/agentpane/sandboxctl/render"
)

func TestKubeconfigThatCannotBeUsed(t *testing.T) {
	r := newTrial(t)
	file := r.file("", oneSandbox)
	empty := filepath.Join(r.dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		kubeconfig string
		args       []string
		code       failure.Code
		words      []string
	}{
		"it is missing":            {filepath.Join(r.dir, "missing"), nil, failure.KubeconfigNotFound, []string{"missing"}},
		"it is a folder":           {r.dir, nil, failure.KubeconfigInvalid, []string{r.dir}},
		"it is empty":              {empty, nil, failure.KubeconfigInvalid, []string{empty}},
		"the context is not there": {r.kubeconfig, []string{"--context", "nowhere"}, failure.ContextNotFound, []string{"nowhere"}},
	} {
		r := r
		r.kubeconfig = test.kubeconfig
		for _, verb := range [][]string{{"plan"}, {"apply", "--yes"}, {"destroy", "--yes"}} {
			o := r.run(slices.Concat(verb, []string{"-f", file}, test.args)...)
			if o.code != 1 || !strings.Contains(o.stderr, "Error: "+string(test.code)+": ") || o.stdout != "" {
				t.Errorf("%s: %s: exit code %d, want %s\n%s%s", name, verb[0], o.code, test.code, o.stdout, o.stderr)
			}
			r.refused(o, test.code, test.words...)
		}
	}
}

func TestServerThatIsSilent(t *testing.T) {
	r := newTrial(t)
	file := r.file("", oneSandbox)
	listener, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	for _, scheme := range []string{"http://", "https://"} {
		server := scheme + listener.Addr().String()
		r.kubeconfig = r.writeKubeconfig(server, "", nil)
		for _, verb := range [][]string{{"plan"}, {"apply", "--yes"}, {"destroy", "--yes"}} {
			begun := time.Now()
			o := r.run(append(verb, "-f", file, "--request-timeout", "1s")...)
			r.refused(o, failure.ClusterUnreachable, server+" did not answer within 1s", "--request-timeout")
			if n := strings.Count(o.stderr, "Error: "); n != 1 {
				t.Errorf("%s %s: it is said %d times\n%s", verb[0], server, n, o.stderr)
			}
			if took := time.Since(begun); took > 20*time.Second {
				t.Errorf("%s %s: it took %s", verb[0], server, took)
			}
		}
	}
}

func TestServerThatRefusesTheConnection(t *testing.T) {
	r := newTrial(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := "https://" + listener.Addr().String()
	listener.Close()
	r.kubeconfig = r.writeKubeconfig(server, "", nil)
	r.refused(r.run("plan", "-f", r.file("", oneSandbox)), failure.ClusterUnreachable, server+" refuses the connection")
}

var notDone = regexp.MustCompile(`(?m)^  not done: `)

// TestServerThatStopsInMidApply: what was done is reported, what is left is
// listed, and applying again goes on from there.
func TestServerThatStopsInMidApply(t *testing.T) {
	const writesBefore = 5
	r := newTrial(t)
	file := r.file("", "  a: {template: t}\n  b: {template: t}\n")
	whole := r.kubeconfig
	var writes atomic.Int64
	r.kubeconfig = r.throughProxy(func(request *http.Request) bool {
		if request.Method != http.MethodGet && request.URL.Query().Get("dryRun") == "" {
			writes.Add(1)
		}
		return writes.Load() <= writesBefore
	})
	o := r.run("apply", "--yes", "-f", file)
	r.refused(o, failure.ClusterUnreachable, "broke the connection off", "releasing the fleet's lock, which ends by itself in 30s")
	if left, done := len(notDone.FindAllString(o.stdout, -1)), strings.Count(o.stderr, " created\n"); left == 0 || done == 0 ||
		!strings.Contains(o.stdout, fmt.Sprintf("Fleet trial: %s made", count(done, "change"))) || !strings.Contains(o.stdout, fmt.Sprintf("%d to create", done+left)) {
		t.Errorf("%d done, %d left\n%s%s", done, left, o.stdout, o.stderr)
	}
	if n := strings.Count(o.stderr, "Error: "); n != 2 { // what broke off, and the lock
		t.Errorf("%d errors\n%s", n, o.stderr)
	}
	if !strings.Contains(o.stdout, "not done: create pod ") {
		t.Errorf("the pods that were not begun are not listed:\n%s", o.stdout)
	}

	r.kubeconfig = whole
	r.unchanged(func() {
		r.refused(r.run("apply", "--yes", "-f", file, "--lock-timeout=0s"), failure.FleetLocked, "the lock ends by itself at ")
	})
	r.now = func() time.Time { return time.Now().Add(time.Minute) } // when the lock has ended
	r.done(r.run("apply", "--yes", "-f", file))
	r.noChanges(file)
}

// locked has somebody hold the fleet's lock for a while.
func (r trial) locked(held time.Duration) {
	r.Helper()
	lock, err := json.Marshal(map[string]any{"holder": "somebody", "until": time.Now().Add(held)})
	r.must(err)
	patch, err := sandbox.Note("", render.LockAnnotation, string(lock))
	r.must(err)
	_, err = r.cluster.Client.CoreV1().ConfigMaps(r.namespace).Patch(r.Context(), "agentpane-fleet-trial", types.MergePatchType, patch, metav1.PatchOptions{})
	r.must(err)
}

// TestLockIsWaitedFor: an apply waits for who changes the fleet, and fails before
// it changes anything where its plan is out of date by then.
func TestLockIsWaitedFor(t *testing.T) {
	r := newTrial(t)
	file := r.file("", oneSandbox)
	r.done(r.run("apply", "--yes", "-f", file))
	labelled := func(value string) string { return r.file("", "  a: {template: t, labels: {version: "+value+"}}\n") }

	r.locked(time.Minute)
	r.unchanged(func() {
		r.refused(r.run("apply", "--yes", "-f", labelled("one"), "--lock-timeout=1s"), failure.FleetLocked, "  waiting up to 1s (--lock-timeout): ", "by somebody")
		r.refused(r.run("destroy", "--yes", "-f", file, "--lock-timeout=0s"), failure.FleetLocked, "by somebody")
	})
	r.locked(3 * time.Second)
	o := r.done(r.run("apply", "--yes", "-f", labelled("one")))
	if waits := strings.Count(o.stderr, "  waiting up to 30s (--lock-timeout): K8S_FLEET_LOCKED: fleet trial is being changed by somebody"); waits != 1 {
		t.Errorf("it is to say once that it waits:\n%s", o.stderr)
	}
	r.noChanges(file)

	whole := r.kubeconfig
	var meanwhile sync.Once
	r.kubeconfig = r.throughProxy(func(request *http.Request) bool {
		if strings.HasSuffix(request.URL.Path, "/configmaps/agentpane-fleet-trial") {
			meanwhile.Do(func() { r.editPod(r.pod("a"), "somebody", `{"metadata":{"labels":{"version":"theirs"}}}`) })
		}
		return true
	})
	r.locked(3 * time.Second)
	r.refused(r.run("apply", "--yes", "-f", labelled("two")), failure.PlanStale, "the plan is out of date: since it was made, pod "+r.pod("a").Name+" (sandbox a) has changed")
	if label := r.pod("a").Labels["version"]; label != "theirs" {
		t.Errorf("it was changed to %s", label)
	}
	r.kubeconfig = whole
	r.done(r.run("apply", "--yes", "-f", labelled("two"), "--force-conflicts"))
	r.noChanges(file)
}

// TestWatchesThatBreakOff: where no watch comes through, pods are waited for
// all the same, and not by a storm of requests.
func TestWatchesThatBreakOff(t *testing.T) {
	r := newTrial(t)
	file := r.file("", oneSandbox)
	var watches atomic.Int64
	r.kubeconfig = r.throughProxy(func(request *http.Request) bool {
		if request.URL.Query().Get("watch") == "" {
			return true
		}
		watches.Add(1)
		return false
	})
	begun := time.Now()
	r.done(r.run("apply", "--yes", "-f", file))
	if n, most := watches.Load(), 5+2*int64(time.Since(begun)/time.Second); n > most {
		t.Errorf("%d watches, want %d at most", n, most)
	}
	r.noChanges(file)
}

// TestServerThatIsGoneWhileWaiting: the pods are made, and nobody knows what
// becomes of them.
func TestServerThatIsGoneWhileWaiting(t *testing.T) {
	r := newTrial(t)
	file := r.file("", oneSandbox)
	whole := r.kubeconfig
	var gone atomic.Bool
	r.kubeconfig = r.throughProxy(func(request *http.Request) bool {
		if request.URL.Query().Get("watch") != "" {
			gone.Store(true)
		}
		return !gone.Load()
	})
	o := r.run("apply", "--yes", "-f", file)
	r.kubeconfig = whole
	r.refused(o, failure.ClusterUnreachable, "broke the connection off")
	if notDone.MatchString(o.stdout) {
		t.Errorf("all was done:\n%s", o.stdout)
	}
	r.noChanges(file)
}

// TestServerThatStopsInMidPlan is one that answers the reads, and no dry run.
func TestServerThatStopsInMidPlan(t *testing.T) {
	r := newTrial(t)
	file := r.file("", oneSandbox)
	r.kubeconfig = r.throughProxy(func(request *http.Request) bool { return request.Method == http.MethodGet })
	r.unchanged(func() {
		o := r.run("apply", "--yes", "-f", file)
		r.refused(o, failure.ClusterUnreachable, "broke the connection off")
		if o.stdout != "" || strings.Count(o.stderr, "Error: ") != 1 {
			t.Errorf("a server that is gone makes no plan\n%s%s", o.stdout, o.stderr)
		}
	})
}

// TestRequestsOfAPlan: with nothing to do, a plan is one request per kind; and
// its exit code says whether there is something to do.
func TestRequestsOfAPlan(t *testing.T) {
	r := newTrial(t)
	file := r.file("", "  a: {template: t}\n  b: {template: t}\n")
	detailed := []string{"plan", "-f", file, "--detailed-exitcode"}
	r.unchanged(func() {
		if o := r.run(detailed...); o.code != 2 || o.stderr != "" {
			t.Errorf("before the apply: exit code %d, want 2\n%s", o.code, o.stderr)
		}
		if o := r.run("plan", "-f", file); o.code != 0 {
			t.Errorf("without --detailed-exitcode: exit code %d, want 0", o.code)
		}
	})
	r.done(r.run("apply", "--yes", "-f", file))
	r.noChanges(file)
	var requests atomic.Int64
	r.kubeconfig = r.throughProxy(func(*http.Request) bool { requests.Add(1); return true })
	r.noChanges(file)
	if got, want := int(requests.Load()), len(render.Kinds()); got != want {
		t.Errorf("%d requests, want one for each of the %d kinds", got, want)
	}
	r.file("", "  a: {template: t, labels: {x: y}}\n  b: {template: t}\n")
	r.unchanged(func() {
		if o := r.run(detailed...); o.code != 2 {
			t.Errorf("after an edit: exit code %d, want 2\n%s%s", o.code, o.stdout, o.stderr)
		}
	})
}

// TestNobodyToAsk: without a terminal and --yes, nothing is changed.
func TestNobodyToAsk(t *testing.T) {
	r := newTrial(t)
	file := r.file("", oneSandbox)
	r.unchanged(func() { r.refused(r.run("apply", "-f", file), "", "pass --yes where nobody can answer") })
	r.done(r.run("apply", "--yes", "-f", file))
	r.unchanged(func() { r.refused(r.run("destroy", "-f", file), "", "pass --yes where nobody can answer") })
}
