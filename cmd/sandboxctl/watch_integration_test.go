//go:build integration

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/agentpane/sandboxctl/reconcile/watch"
	"github.com/agentpane/sandboxctl/render"
)

// watching is a watch that runs, and what it has told.
type watching struct {
	trial
	records chan map[string]any
	seen    []string
	stop    context.CancelFunc
	code    chan int
	stderr  *bytes.Buffer
}

// watch runs watch on the file until the test ends.
func (r trial) watch(file string, args ...string) *watching {
	r.Helper()
	ctx, stop := context.WithCancel(r.Context())
	reader, writer := io.Pipe()
	w := &watching{trial: r, records: make(chan map[string]any, 10_000), stop: stop, code: make(chan int, 1), stderr: &bytes.Buffer{}}
	args = append([]string{"watch", "-f", file, "--log=json", "--kubeconfig", r.kubeconfig}, args...)
	go func() {
		code := run(ctx, args, environment{
			stdin: strings.NewReader(""), stdout: writer, stderr: w.stderr, now: r.now,
			lookupEnv: r.lookupEnv,
		})
		writer.Close()
		w.code <- code
	}()
	go func() {
		defer close(w.records)
		for lines := bufio.NewScanner(reader); lines.Scan(); {
			var record map[string]any
			if err := json.Unmarshal(lines.Bytes(), &record); err != nil {
				record = map[string]any{"msg": lines.Text()}
			}
			w.records <- record
		}
	}()
	r.Cleanup(func() { w.end() })
	return w
}

// end ends the watch as Ctrl-C does, and checks that it was well.
func (w *watching) end() {
	w.Helper()
	if w.stop == nil {
		return
	}
	w.stop()
	w.stop = nil
	for range w.records {
	}
	if code := <-w.code; code != 0 {
		w.Errorf("watch ended with exit code %d\n%s\n%s", code, w.stderr, strings.Join(w.seen, "\n"))
	}
}

// await waits for a record with these values.
func (w *watching) await(values ...string) map[string]any {
	w.Helper()
	deadline := time.After(2 * time.Minute)
	for {
		select {
		case record, open := <-w.records:
			if !open {
				w.Fatalf("watch ended; it was to tell %v, and told\n%s\n%s", values, strings.Join(w.seen, "\n"), w.stderr)
			}
			text, _ := json.Marshal(record)
			w.seen = append(w.seen, string(text))
			if matches(record, values) {
				return record
			}
		case <-deadline:
			w.Fatalf("watch was to tell %v, and told\n%s", values, strings.Join(w.seen, "\n"))
		}
	}
}

// matches tells whether a record has each of the key, value pairs; a value is a
// part of what is there.
func matches(record map[string]any, pairs []string) bool {
	for i := 0; i < len(pairs); i += 2 {
		value, _ := record[pairs[i]].(string)
		if !strings.Contains(value, pairs[i+1]) {
			return false
		}
	}
	return true
}

// drain takes in what watch has told so far.
func (w *watching) drain() {
	for {
		select {
		case record, open := <-w.records:
			if !open {
				return
			}
			text, _ := json.Marshal(record)
			w.seen = append(w.seen, string(text))
		default:
			return
		}
	}
}

// settled waits until the cluster is as the file says.
func (w *watching) settled() {
	w.Helper()
	w.await("event", string(watch.Settled))
}

// podOf is the pod of a sandbox that is not on its way out.
func (r trial) podOf(sandbox string) *corev1.Pod {
	r.Helper()
	list, err := r.cluster.Client.CoreV1().Pods(r.namespace).List(r.Context(), metav1.ListOptions{LabelSelector: render.SandboxIDLabel + "=" + sandbox})
	r.must(err)
	for i := range list.Items {
		if list.Items[i].DeletionTimestamp == nil {
			return &list.Items[i]
		}
	}
	r.Fatalf("sandbox %s has no pod", sandbox)
	return nil
}

func TestWatchKeepsTheFileAndTheCluster(t *testing.T) {
	r := newTrial(t)
	file := r.file("", "  a: {template: t}\n")
	w := r.watch(file)
	w.settled()
	w.await("event", "ready", "sandbox", "a")

	r.file("", "  a: {template: t}\n  b: {template: t, labels: {x: y}}\n")
	w.await("event", "ready", "sandbox", "b")
	r.noChanges(file)

	a := r.podOf("a")
	r.must(r.cluster.Client.CoreV1().Pods(r.namespace).Delete(r.Context(), a.Name, metav1.DeleteOptions{}))
	w.await("event", "drift", "sandbox", "a", "action", "create")
	w.await("event", "ready", "sandbox", "a")
	if again := r.podOf("a"); again.UID == a.UID {
		t.Error("the pod that was deleted is still there")
	}

	r.editPod(r.podOf("b"), "kubectl-edit", `{"metadata":{"labels":{"x":"z"}}}`)
	w.await("event", "changed", "sandbox", "b", "action", "update")
	if got := r.podOf("b").Labels["x"]; got != "y" {
		t.Errorf("the label is %q, and was to be repaired", got)
	}

	policies := r.cluster.Client.NetworkingV1().NetworkPolicies(r.namespace)
	r.must(policies.Delete(r.Context(), "sandbox-default-deny-trial", metav1.DeleteOptions{}))
	w.await("event", "changed", "kind", "NetworkPolicy", "action", "create")

	r.file("", "  b: {template: t, labels: {x: y}}\n")
	w.await("event", "changed", "sandbox", "a", "action", "delete")
	w.settled()
	w.end()
	r.noChanges(file)
}

// TestWatchKeepsTheLastGoodFile: whatever happens to the file, nothing is lost,
// and drift is repaired all the same.
func TestWatchKeepsTheLastGoodFile(t *testing.T) {
	r := newTrial(t)
	file := r.file("", "  a: {template: t}\n")
	good, err := os.ReadFile(file)
	r.must(err)
	w := r.watch(file, "--poll=100ms")
	w.await("event", "ready", "sandbox", "a")
	before := r.podOf("a").UID
	for what, content := range map[string]string{
		`There is no template \"tt\"`: strings.Replace(string(good), "{template: t}", "{template: tt}", 1),
		"The file is empty":           "",
		"is not complete":             string(good[:len(good)-5]) + "\n  {",
	} {
		r.must(os.WriteFile(file, []byte(content), 0o600))
		record := w.await("level", "ERROR", "file", "sandboxes.yaml")
		if record["line"] == nil || record["column"] == nil {
			t.Errorf("%s: the place is missing: %v", what, record)
		}
	}
	r.must(os.Remove(file))
	w.await("level", "ERROR", "msg", "Cannot read")
	policies := r.cluster.Client.NetworkingV1().NetworkPolicies(r.namespace)
	r.must(policies.Delete(r.Context(), "sandbox-default-deny-trial", metav1.DeleteOptions{}))
	w.await("event", "changed", "kind", "NetworkPolicy", "action", "create")
	w.settled()
	r.file("", "  {}\n") // an empty file prunes nothing
	w.settled()
	if after := r.podOf("a").UID; after != before {
		t.Error("the pod was replaced")
	}
}

func TestWatchThatDetects(t *testing.T) {
	r := newTrial(t)
	file := r.file("", "  a: {template: t}\n")
	r.done(r.run("apply", "--yes", "-f", file))
	if o := r.run("watch", "--once", "--mode=detect", "-f", file); o.code != 0 {
		t.Errorf("without drift: exit code %d\n%s%s", o.code, o.stdout, o.stderr)
	}
	w := r.watch(file, "--mode=detect")
	w.settled()
	pod := r.podOf("a")
	r.editPod(pod, "kubectl-edit", `{"metadata":{"labels":{"agentpane.io/project-id":"other"}}}`)
	record := w.await("event", "drift", "sandbox", "a", "action", "update")
	if !strings.Contains(record["msg"].(string), "agentpane.io/project-id") {
		t.Errorf("the field is not named: %v", record)
	}
	if o := r.run("watch", "--once", "--mode=detect", "-f", file); o.code != 2 {
		t.Errorf("with drift: exit code %d, want 2\n%s%s", o.code, o.stdout, o.stderr)
	}
	if got := r.podOf("a").Labels[render.ProjectIDLabel]; got != "other" {
		t.Errorf("it was repaired: %q", got)
	}
	r.removePolicy() // that the fleet's own rules differ hides nothing of its sandboxes
	w.await("event", "drift", "kind", "NetworkPolicy")
	r.editPod(pod, "kubectl-edit", `{"metadata":{"labels":{"agentpane.io/project-id":"another","x":"y"}}}`)
	r.editPod(pod, "kubectl-edit", `{"metadata":{"labels":{"agentpane.io/managed":"me"}}}`)
	w.await("event", "drift", "sandbox", "a", "msg", `"agentpane.io/managed"`)
}

func TestWatchThatIsSuspended(t *testing.T) {
	r := newTrial(t)
	file := r.file("", "  a: {template: t}\n  b: {template: t}\n")
	r.done(r.run("apply", "--yes", "-f", file))
	r.editPod(r.podOf("a"), "kubectl-annotate", `{"metadata":{"annotations":{"`+watch.SuspendAnnotation+`":"true"}}}`)
	w := r.watch(file)
	w.settled()
	for _, sandbox := range []string{"a", "b"} {
		r.editPod(r.podOf(sandbox), "kubectl-edit", `{"metadata":{"labels":{"agentpane.io/project-id":"other"}}}`)
	}
	w.await("event", "drift", "sandbox", "a")
	w.await("event", "changed", "sandbox", "b", "action", "update")
	if got := r.podOf("a").Labels[render.ProjectIDLabel]; got != "other" {
		t.Errorf("it was repaired although it is suspended: %q", got)
	}
	r.editPod(r.podOf("a"), "kubectl-annotate", `{"metadata":{"annotations":{"`+watch.SuspendAnnotation+`":null}}}`)
	w.await("event", "changed", "sandbox", "a", "action", "update")

	// The whole fleet, by its file: what was saved meanwhile is applied after.
	r.file("suspend: true\n", "  a: {template: t}\n  b: {template: t}\n")
	w.settled()
	r.file("suspend: true\n", "  a: {template: t, labels: {saved: meanwhile}}\n  b: {template: t}\n")
	w.await("event", "drift", "sandbox", "a", "msg", "saved")
	r.file("", "  a: {template: t, labels: {saved: meanwhile}}\n  b: {template: t}\n")
	w.await("event", "changed", "sandbox", "a", "action", "update")
	w.settled()

	// And by an annotation of its namespace.
	namespaces := r.cluster.Client.CoreV1().Namespaces()
	suspend := func(value string) {
		patch := []byte(`{"metadata":{"annotations":{"` + watch.SuspendAnnotation + `":` + value + `}}}`)
		_, err := namespaces.Patch(t.Context(), r.namespace, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "kubectl-annotate"})
		r.must(err)
	}
	suspend(`"true"`)
	r.eventually("it is left alone", func(context.Context) bool {
		r.editPod(r.podOf("b"), "kubectl-edit", `{"metadata":{"labels":{"agentpane.io/project-id":"other"}}}`)
		<-time.After(time.Second) // a span in which it could be repaired
		return r.podOf("b").Labels[render.ProjectIDLabel] == "other"
	})
	suspend("null")
	w.await("event", "changed", "sandbox", "b", "action", "update")
}

// TestWatchOnceSparesWhatIsSuspended, and does the rest.
func TestWatchOnceSparesWhatIsSuspended(t *testing.T) {
	r := newTrial(t)
	const sandboxes = "  a: {template: t}\n  b: {template: t}\n"
	file := r.file("", sandboxes)
	r.done(r.run("apply", "--yes", "-f", file))
	r.editPod(r.podOf("a"), "kubectl-annotate", `{"metadata":{"annotations":{"`+watch.SuspendAnnotation+`":"true"}}}`)
	for _, sandbox := range []string{"a", "b"} {
		r.editPod(r.podOf(sandbox), "kubectl-edit", `{"metadata":{"labels":{"agentpane.io/project-id":"other"}}}`)
	}
	o := r.done(r.run("watch", "--once", "-f", file))
	if got := r.podOf("a").Labels[render.ProjectIDLabel]; got != "other" || !strings.Contains(o.stdout, "Sandbox a is suspended") {
		t.Errorf("it was repaired although it is suspended: %q\n%s", got, o.stdout)
	}
	if got := r.podOf("b").Labels[render.ProjectIDLabel]; got != "b" {
		t.Errorf("it was not repaired: %q\n%s", got, o.stdout)
	}
	file = r.file("suspend: true\n", "  a: {template: t}\n")
	r.unchanged(func() {
		if o := r.done(r.run("watch", "--once", "-f", file)); !strings.Contains(o.stdout, "Fleet trial is suspended, as its file says") {
			t.Error(o.stdout)
		}
	})
}

// TestWatchAsksNothingWhileNothingChanges counts the requests beside watches.
func TestWatchAsksNothingWhileNothingChanges(t *testing.T) {
	r := newTrial(t)
	file := r.file("", "  a: {template: t}\n  b: {template: t}\n")
	r.done(r.run("apply", "--yes", "-f", file))
	var asked atomic.Int64
	r.kubeconfig = r.throughProxy(func(request *http.Request) bool {
		if request.URL.Query().Get("watch") == "" {
			asked.Add(1)
		}
		return true
	})
	w := r.watch(file, "--resync=100ms", "--poll=100ms")
	w.settled()
	before := asked.Load()
	<-time.After(3 * time.Second) // a span that is measured
	if n := asked.Load() - before; n != 0 {
		t.Errorf("%d requests while nothing changed", n)
	}
}

// TestWatchLeavesAFightAlone: an object that another manager changes again and
// again is left alone after a while, and who it is, is named.
func TestWatchLeavesAFightAlone(t *testing.T) {
	r := newTrial(t)
	file := r.file("", "  a: {template: t}\n")
	w := r.watch(file)
	w.settled()
	w.await("event", "ready", "sandbox", "a")
	for range 6 {
		r.editPod(r.podOf("a"), "kubectl-rival", `{"metadata":{"labels":{"agentpane.io/project-id":"other"}}}`)
		record := w.await("sandbox", "a", "msg", "pod ")
		for record["event"] != "changed" && record["event"] != "flapping" {
			record = w.await("sandbox", "a", "msg", "pod ")
		}
		if record["event"] == "flapping" {
			if !strings.Contains(record["msg"].(string), "kubectl-rival") {
				t.Errorf("the rival is not named: %v", record)
			}
			r.removePolicy() // the rest of the fleet does not suffer from it
			w.await("event", "changed", "kind", "NetworkPolicy", "action", "create")
			r.file("", "  a: {template: t}\n  b: {template: t}\n")
			w.await("event", "ready", "sandbox", "b")
			return
		}
	}
	t.Error("the fight went on")
}

// TestWatchWaitsForTheLock: while somebody else changes the fleet, what differs is
// told once, and is no fight.
func TestWatchWaitsForTheLock(t *testing.T) {
	r := newTrial(t)
	w := r.watch(r.file("", oneSandbox))
	w.settled()
	w.await("event", "ready", "sandbox", "a")
	r.locked(12 * time.Second) // it is tried more often than a fight lasts
	r.editPod(r.podOf("a"), "kubectl-rival", `{"metadata":{"labels":{"agentpane.io/project-id":"other"}}}`)
	w.await("event", "waiting", "msg", "is being changed by somebody")
	w.await("event", "changed", "sandbox", "a")
	told := strings.Join(w.seen, "\n")
	if drifts := strings.Count(told, `"event":"drift"`); drifts != 1 || strings.Contains(told, `"event":"flapping"`) {
		t.Errorf("%d drifts were told, want 1, and no fight:\n%s", drifts, told)
	}
}
