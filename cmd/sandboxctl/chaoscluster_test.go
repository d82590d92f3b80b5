//go:build integration && soak

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/agentpane/sandboxctl/reconcile/clustertest"
	"github.com/agentpane/sandboxctl/render"
)

// ownCluster is a cluster that nobody else uses, so that its parts can be
// killed. It is made by testdata/cluster, which needs Linux and root.
type ownCluster struct {
	*testing.T
	binary string
}

func newOwnCluster(t *testing.T) ownCluster {
	t.Helper()
	c := ownCluster{t, filepath.Join(t.TempDir(), "cluster")}
	build := exec.Command("go", "build", "-o", c.binary, ".")
	build.Dir = clusterSource
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the cluster's program: %v\n%s", err, output)
	}
	c.control("down") // what a run that was cut off has left
	t.Cleanup(func() { c.control("down") })
	c.control("up")
	return c
}

const clusterSource = "../../testdata/cluster"

// control runs a command of the cluster's program.
func (c ownCluster) control(args ...string) (output string) {
	c.Helper()
	command := exec.Command(c.binary, append([]string{"--name", "faults", "--network", "10.213.0.8/30"}, args...)...)
	command.Dir = clusterSource
	var stderr strings.Builder
	command.Stderr = &stderr
	result, err := command.Output()
	if err != nil {
		c.Fatalf("cluster %v: %v\n%s", args, err, stderr.String())
	}
	return string(result)
}

// kubeconfig is the cluster's.
func (c ownCluster) kubeconfig() string {
	c.Helper()
	for line := range strings.Lines(c.control("env")) {
		if path, found := strings.CutPrefix(strings.TrimSpace(line), "export KUBECONFIG="); found {
			return path
		}
	}
	c.Fatal("the cluster names no kubeconfig")
	return ""
}

// etcd calls the cluster's etcd, and returns its revision.
func (c ownCluster) etcd(method, body string) (revision int64) {
	c.Helper()
	answer := c.control("exec", "curl", "--silent", "--show-error", "--fail", "--noproxy", "*", "--data", body, "http://127.0.0.1:2379/v3/"+method)
	var header struct{ Header struct{ Revision string } }
	if err := json.Unmarshal([]byte(answer), &header); err != nil {
		c.Fatalf("etcd answers %q: %v", answer, err)
	}
	revision, err := strconv.ParseInt(header.Header.Revision, 10, 64)
	if err != nil {
		c.Fatalf("etcd answers %q: %v", answer, err)
	}
	return revision
}

// siege is a fleet that watch keeps while its cluster fails.
type siege struct {
	trial
	own   ownCluster
	watch *watching
	saves int
	// pods are those of the sandboxes a and b, which nothing may touch.
	pods map[string]types.UID
}

// save saves the file with another label, and with the sandbox x or without.
func (s *siege) save() (file string) {
	s.Helper()
	s.saves++
	sandboxes := fmt.Sprintf("  a: {template: t, labels: {save: \"%d\"}}\n  b: {template: t}\n", s.saves)
	if s.saves%2 == 0 {
		sandboxes += "  x: {template: t, pod: {terminationGracePeriodSeconds: 1}}\n"
	}
	return s.file("", sandboxes)
}

// holds waits until all is as the file says, and expects each sandbox to have
// the one pod that it had.
func (s *siege) holds(after string) {
	s.Helper()
	file := filepath.Join(s.dir, "sandboxes.yaml")
	deadline := time.Now().Add(4 * time.Minute)
	for {
		o := s.run("plan", "-f", file, "--detailed-exitcode", "--request-timeout", "10s")
		if o.code == 0 {
			break
		}
		if time.Now().After(deadline) {
			s.watch.drain()
			s.Fatalf("after %s, the cluster is not as the file says: %s%s\nwatch told\n%s", after, o.stdout, o.stderr, strings.Join(s.watch.seen, "\n"))
		}
		<-time.After(500 * time.Millisecond) // a span between two looks
	}
	pods, err := s.cluster.Client.CoreV1().Pods(s.namespace).List(s.Context(), metav1.ListOptions{})
	s.must(err)
	stay := slices.DeleteFunc(pods.Items, func(pod corev1.Pod) bool { return pod.DeletionTimestamp != nil })
	if want := len(s.pods) + (s.saves+1)%2; len(stay) != want {
		s.Errorf("after %s there are %d pods, want %d", after, len(stay), want)
	}
	for sandbox, uid := range s.pods {
		if pod := s.podOf(sandbox); pod.UID != uid {
			s.Errorf("after %s, sandbox %s has another pod", after, sandbox)
		}
	}
}

// answers waits until the API server answers.
func (s *siege) answers() {
	s.Helper()
	s.eventually("the API server answers", func(ctx context.Context) bool {
		_, err := s.cluster.Client.CoreV1().Pods(s.namespace).List(ctx, metav1.ListOptions{})
		return err == nil
	})
}

// compact has etcd forget all but the latest, and the API server with it: a
// watch that goes on from before that is answered 410 Gone.
func (s *siege) compact() {
	s.Helper()
	pods := s.cluster.Client.CoreV1().Pods(s.namespace)
	before, err := pods.List(s.Context(), metav1.ListOptions{})
	s.must(err)
	label := fmt.Appendf(nil, `{"metadata":{"annotations":{"test.invalid/compaction":"%d"}}}`, s.saves)
	_, err = pods.Patch(s.Context(), s.podOf("b").Name, types.MergePatchType, label, metav1.PatchOptions{})
	s.must(err)
	s.own.etcd("kv/compaction", fmt.Sprintf(`{"revision":"%d","physical":true}`, s.own.etcd("maintenance/status", "{}")))
	s.own.control("kill", "kube-apiserver")
	s.save()
	s.own.control("start", "kube-apiserver")
	s.answers()
	events, err := pods.Watch(s.Context(), metav1.ListOptions{ResourceVersion: before.ResourceVersion})
	if err == nil {
		defer events.Stop()
		if event := <-events.ResultChan(); event.Type == watch.Error {
			err = apierrors.FromObject(event.Object)
		}
	}
	if !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
		s.Errorf("a watch from before the compaction is answered %v, and was to be gone", err)
	}
}

// restore has etcd be again as it was before the file was saved last: the
// server's resourceVersions go back, and it knows nothing of what was done since.
func (s *siege) restore() {
	s.Helper()
	data := filepath.Join(filepath.Dir(filepath.Dir(s.kubeconfig)), "etcd")
	backup := filepath.Join(s.dir, "etcd")
	offline := func(do func()) {
		s.own.control("stop", "kube-apiserver")
		s.own.control("stop", "etcd")
		do()
		s.own.control("start", "etcd")
		s.own.control("start", "kube-apiserver")
		s.answers()
	}
	offline(func() { s.must(os.CopyFS(backup, os.DirFS(data))) })
	s.save()
	s.holds("a backup of etcd")
	offline(func() {
		s.must(os.RemoveAll(data))
		s.must(os.CopyFS(data, os.DirFS(backup)))
		s.must(os.RemoveAll(backup))
	})
	for _, part := range []string{"kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet"} {
		s.own.control("restart", part) // as whoever restores a backup is told to
	}
}

// lose has the node be not ready: its kubelet is away, and its pods are ready no
// more, as far as anybody knows.
func (s *siege) lose() {
	s.Helper()
	s.own.control("stop", "kubelet")
	for deadline := time.Now().Add(4 * time.Minute); isReady(s.podOf("a")); {
		if time.Now().After(deadline) {
			s.Fatal("the node's pods stay ready without a kubelet")
		}
		<-time.After(time.Second) // a span between two looks
	}
	s.save()
	<-time.After(span(time.Second, 20*time.Second)) // it is away
	s.own.control("start", "kubelet")
}

// TestClusterFaults: the parts of a cluster are killed, frozen and restarted
// while watch runs and the file changes. Watch goes on, what the file says
// comes, and no pod is made twice.
func TestClusterFaults(t *testing.T) {
	own := newOwnCluster(t)
	kubeconfig := own.kubeconfig()
	r := newTrialOn(t, clustertest.ConnectTo(t, kubeconfig), kubeconfig)
	s := &siege{trial: r, own: own, pods: map[string]types.UID{}}
	file := s.save()
	s.watch = r.watch(file, "--events=false")
	s.watch.settled()
	for _, sandbox := range []string{"a", "b"} {
		s.watch.await("event", "ready")
		s.pods[sandbox] = r.podOf(sandbox).UID
	}
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	restart := func(part string) func() {
		return func() {
			own.control("restart", part)
			s.save()
		}
	}
	for _, fault := range []struct {
		name  string
		times int // when soaking
		do    func()
	}{
		{"kills of the API server", 30, func() {
			own.control("kill", "kube-apiserver")
			s.save()
			<-time.After(time.Duration(s.saves%4) * time.Second) // it is away
			own.control("start", "kube-apiserver")
		}},
		{"minutes without API server", 2, func() {
			own.control("stop", "kube-apiserver")
			s.save()
			<-time.After(span(20*time.Second, time.Minute)) // it is away
			own.control("start", "kube-apiserver")
		}},
		{"pauses of etcd", 3, func() {
			own.control("pause", "etcd")
			s.save()
			<-time.After(span(10*time.Second, 40*time.Second)) // it is away
			own.control("resume", "etcd")
		}},
		{"compactions", 50, s.compact},
		{"restarts of the kubelet", 3, restart("kubelet")},
		{"restarts of containerd", 3, restart("containerd")},
		{"losses of the node", 2, s.lose},
		{"restores of etcd", 3, s.restore},
	} {
		faults, times := newTally(t, fault.name), 1
		if soaking() {
			times = fault.times
		}
		for range times {
			faults.try(func() {
				fault.do()
				s.answers()
				s.holds("one of the " + fault.name)
				s.watch.drain()
			})
			if t.Failed() {
				t.FailNow()
			}
		}
	}
	const some = 20 // a connection has a few
	r.eventually("goroutines and open files are as many as before", func(context.Context) bool {
		return runtime.NumGoroutine() < goroutines+some && openFiles(t) < files+some
	})
	t.Logf("goroutines: %d before, %d after; open files: %d before, %d after", goroutines, runtime.NumGoroutine(), files, openFiles(t))
	if !strings.Contains(strings.Join(s.watch.seen, "\n"), `"event":"unreachable"`) {
		t.Error("watch never told that the cluster cannot be watched")
	}
	s.watch.end()
	for _, sandbox := range []string{"a", "b"} {
		if pod := r.podOf(sandbox); pod.Status.Phase != corev1.PodRunning || pod.Labels[render.SandboxIDLabel] != sandbox {
			t.Errorf("the pod of sandbox %s is %s", sandbox, pod.Status.Phase)
		}
	}
}

// openFiles is how many files the process has open.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
