//go:build integration

package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/agentpane/sandboxctl/render"
)

// What a program must survive: it is killed after any of its writes, and the
// network or the server fails in every way that is known. The oracles are those
// of Sieve (OSDI 2022): what comes of it is what comes of a quiet run, no pod is
// made twice, and a second run has nothing to do. A part of it runs in `make
// test`, and all of it as `make soak`.

// tried are the scenarios that a run goes through: all, or the quick ones.
func tried(quick ...string) []scenario {
	all := scenarios()
	if soaking() {
		return all
	}
	return slices.DeleteFunc(all, func(s scenario) bool { return !slices.Contains(quick, s.name) })
}

// scenario is a file that is in force, and what it is changed to.
type scenario struct {
	name          string
	before, after written
	// pods is how many pods are made on the way from before to after.
	pods int
	// runs: before and after are there when their pods run.
	runs bool
}

// written is what a file says: of the fleet, and its sandboxes.
type written struct{ fleet, sandboxes string }

// waiting are apply's flags.
func (s scenario) waiting() []string {
	if s.runs {
		return []string{"--yes"}
	}
	return []string{"--yes", "--no-wait"}
}

func scenarios() []scenario {
	const pending = "{nodeSelector: {none: such}}" // a pod's start is most of the time, and nothing of ours
	pod, size := pending, 2
	if soaking() {
		pod, size = "{terminationGracePeriodSeconds: 1}", 4
	}
	sandboxes := func(n int, pod, more string) written {
		var file strings.Builder
		for i := range n {
			fmt.Fprintf(&file, "  s%02d: {template: t, pod: %s%s}\n", i, pod, more)
		}
		return written{sandboxes: file.String()}
	}
	some := func(more string) written { return sandboxes(size, pod, more) }
	none := written{sandboxes: "  {}\n"}
	const pool = "pools: {p: {template: t, min: 2, max: 3, autoscale: false}}\n"
	return []scenario{
		{"create", none, sandboxes(20, pending, ", workspace: {size: 10Mi}"), 20, false},
		{"change", some(""), some(", labels: {x: y}"), 0, false},
		{"replace", some(""), some(", env: {X: y}"), size, false},
		{"allowlist", some(", egress: {allow: [{cidr: 198.51.100.0/24}]}"), some(", egress: {allow: []}"), 0, false},
		{"pool", none, written{pool, "  {}\n"}, 2, true},
		{"claim", written{pool, "  {}\n"}, written{pool, "  a: {pool: p}\n"}, 1, true}, // what takes a place is a claim's, or else the sandbox's
		{"sessions", sandboxes(1, pod, ", sessions: {kept: {}, gone: {}}"), sandboxes(1, pod, ", sessions: {kept: {windows: [{window_name: w}, {window_name: x}]}, new: {}}"), 0, true},
		{"remove", some(""), sandboxes(1, pod, ""), 0, false},
	}
}

// pods counts the pods that are made and that go while the test runs, by uid,
// and the most that were there at once.
type pods struct {
	mutex sync.Mutex // protects the rest
	made  map[types.UID]bool
	alive map[types.UID]bool
	gone  int
	most  int
}

// countPods begins to count. The count is complete when stop has returned.
func (r trial) countPods() (counted *pods, stop func()) {
	r.Helper()
	counted = &pods{made: map[types.UID]bool{}, alive: map[types.UID]bool{}}
	client := r.cluster.Client.CoreV1().Pods(r.namespace)
	list, err := client.List(r.Context(), metav1.ListOptions{})
	r.must(err)
	for _, pod := range list.Items {
		counted.alive[pod.UID] = true
	}
	events, err := client.Watch(r.Context(), metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	r.must(err)
	var counting sync.WaitGroup
	counting.Go(func() {
		for event := range events.ResultChan() {
			pod, ok := event.Object.(*corev1.Pod)
			if !ok {
				continue
			}
			counted.mutex.Lock()
			switch event.Type {
			case watch.Added:
				counted.made[pod.UID], counted.alive[pod.UID] = true, true
			case watch.Deleted:
				delete(counted.alive, pod.UID)
				counted.gone++
			}
			counted.most = max(counted.most, len(counted.alive))
			counted.mutex.Unlock()
		}
	})
	return counted, func() {
		r.eventually("every pod is counted", func(ctx context.Context) bool {
			list, err := client.List(ctx, metav1.ListOptions{})
			return err == nil && counted.has(list.Items)
		})
		events.Stop()
		counting.Wait()
	}
}

// has tells whether these are the pods that are counted as alive.
func (c *pods) has(listed []corev1.Pod) bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for _, pod := range listed {
		if !c.alive[pod.UID] {
			return false
		}
	}
	return len(c.alive) == len(listed)
}

// were expects so many pods to have been made and to have gone.
func (r trial) were(counted *pods, made, gone int) {
	r.Helper()
	counted.mutex.Lock()
	defer counted.mutex.Unlock()
	if len(counted.made) != made || counted.gone != gone {
		r.Errorf("%d pods were made and %d have gone, want %d and %d", len(counted.made), counted.gone, made, gone)
	}
}

// prepare brings the cluster to where the scenario begins.
func (r trial) prepare(s scenario) (file string) {
	r.Helper()
	file = r.file(s.before.fleet, s.before.sandboxes)
	r.applied(s, file)
	return r.file(s.after.fleet, s.after.sandboxes)
}

// applied applies a file of the scenario.
func (r trial) applied(s scenario, file string) {
	r.Helper()
	r.done(r.run(append([]string{"apply", "-f", file}, s.waiting()...)...))
}

// result is what came of a scenario: each object and what was written to it, of
// pods how many stay of each sandbox and pool, and what is in tmux. Who it is differs
// from run to run, and so do the names of warm pods and what a pool has counted.
func (r trial) result(s scenario) map[string]string {
	r.Helper()
	result := map[string]string{}
	for name, value := range r.state() {
		if !strings.HasPrefix(name, "Pod ") && !strings.HasPrefix(name, "ConfigMap agentpane-pools-") { // the server writes a node's name and more into them
			_, result[name], _ = strings.Cut(value, " ")
		}
	}
	pods, err := r.cluster.Client.CoreV1().Pods(r.namespace).List(r.Context(), metav1.ListOptions{})
	r.must(err)
	for _, pod := range pods.Items {
		if pod.DeletionTimestamp != nil {
			continue
		}
		result["Pod of "+cmp.Or(pod.Labels[render.SandboxIDLabel], pod.Labels[render.PoolIDLabel])] += "+"
	}
	if strings.Contains(s.after.sandboxes, "sessions:") {
		o := r.done(r.run("exec", "s00", "-f", filepath.Join(r.dir, "sandboxes.yaml"), "--", "tmux", "list-panes", "-a", "-F", "#{session_name}:#{window_name}.#{pane_index}"))
		result["tmux"] = o.stdout
	}
	return result
}

// quiet is what comes of a scenario where nothing fails.
func (r trial) quiet(s scenario) map[string]string {
	r.Helper()
	file := r.prepare(s)
	r.applied(s, file)
	result := r.result(s)
	r.done(r.run("destroy", "--yes", "-f", file))
	return result
}

// check applies the oracles after a run with faults.
func (r trial) check(s scenario, file string, want map[string]string, counted *pods) {
	r.Helper()
	r.noChanges(file)
	if diff := gocmp.Diff(want, r.result(s)); diff != "" {
		r.Errorf("another result than of a quiet run (-want +got):\n%s", diff)
	}
	counted.mutex.Lock()
	defer counted.mutex.Unlock()
	if len(counted.made) != s.pods {
		r.Errorf("%d pods were made, want %d", len(counted.made), s.pods)
	}
}

// program is this test binary as the program itself: see TestMain.
func (r trial) program() string {
	r.Helper()
	self, err := os.Executable()
	r.must(err)
	path := filepath.Join(r.TempDir(), "sandboxctl")
	r.must(os.Symlink(self, path))
	return path
}

func isWrite(request *http.Request) bool {
	return request.Method != http.MethodGet && request.URL.Query().Get("dryRun") == ""
}

func isExec(request *http.Request) bool { return strings.HasSuffix(request.URL.Path, "/exec") }

// TestKilledAfterEachWrite: apply and watch, killed by SIGKILL right after the
// server has done their n-th write or exec, for each n; then run again.
func TestKilledAfterEachWrite(t *testing.T) {
	t.Parallel()
	points := newTally(t, "crash points")
	for _, verb := range []string{"apply", "watch"} {
		for _, s := range tried("replace") {
			t.Run(verb+" "+s.name, func(t *testing.T) {
				r := newTrial(t)
				want := r.quiet(s)
				program := r.program()
				stride := 1
				if !soaking() {
					stride = 3
				}
				for n, killed := 1, true; killed; n += stride {
					killed = false // where there is no time left
					points.try(func() { killed = r.killedAfter(program, verb, s, n, want) })
				}
			})
		}
	}
}

// killedAfter runs one crash point; false when the program ends before it.
func (r trial) killedAfter(program, verb string, s scenario, n int, want map[string]string) (killed bool) {
	r.Helper()
	file := r.prepare(s)
	counted, stop := r.countPods()
	var writes atomic.Int64
	ctx, kill := context.WithCancel(r.Context())
	defer kill()
	kubeconfig := r.through(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
			if !isWrite(request) && !isExec(request) {
				next.ServeHTTP(response, request)
				return
			}
			switch at := writes.Add(1); {
			case at > int64(n):
				panic(http.ErrAbortHandler)
			case at == int64(n):
				if !isExec(request) { // which has to be heard while it goes on
					response = discard{}
				}
				next.ServeHTTP(response, request) // done by the server, and never heard of
				kill()
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(response, request)
		})
	})
	args := []string{verb, "-f", file, "--kubeconfig", kubeconfig, "--request-timeout", "10s"}
	if verb == "apply" {
		args = append(args, s.waiting()...)
	} else {
		args = append(args, "--events=false", "--log=json")
	}
	command := exec.CommandContext(ctx, program, args...) // which kills by SIGKILL
	output := &settling{stop: kill}
	command.Stdout = output
	err := command.Run()
	killed = writes.Load() >= int64(n)
	if !killed && err != nil && !output.settled.Load() {
		r.Errorf("%s ended by itself with %v\n%s", verb, err, output.text())
	}
	again := r
	again.now = func() time.Time { return time.Now().Add(time.Minute) } // when the lock has ended
	again.applied(s, file)
	stop()
	r.check(s, file, want, counted)
	again.done(again.run("destroy", "--yes", "-f", file))
	if r.Failed() {
		r.Fatalf("after write %d", n)
	}
	return killed
}

// settling is the output of watch, which is stopped when all is as it should be.
type settling struct {
	mutex   sync.Mutex // protects written
	written strings.Builder
	settled atomic.Bool
	stop    func()
}

func (s *settling) Write(content []byte) (int, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.written.Write(content)
	if strings.Contains(string(content), `"event":"settled"`) {
		s.settled.Store(true)
		s.stop()
	}
	return len(content), nil
}

func (s *settling) text() string {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.written.String()
}

// discard is an answer that nobody hears.
type discard struct{}

func (discard) Header() http.Header               { return http.Header{} }
func (discard) Write(content []byte) (int, error) { return len(content), nil }
func (discard) WriteHeader(int)                   {}
