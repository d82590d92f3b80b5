//go:build bench && linux

package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/agentpane/sandboxctl/reconcile/clustertest"
)

// watched is a program that watches a fleet, whose requests are looked at.
type watched struct {
	*testing.B
	process *os.Process
	wait    func() error
	client  kubernetes.Interface
	// requests counts what is asked, pods has the times of writes to pods.
	requests atomic.Int64
	pods     chan time.Time
	settled  chan struct{}
}

// startWatch starts to watch, and returns when all is as the file says.
func startWatch(b *testing.B, program, file string) *watched {
	b.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("SANDBOXCTL_TEST_KUBECONFIG"))
	if err != nil {
		b.Fatal(err)
	}
	w := &watched{B: b, pods: make(chan time.Time, 100_000), settled: make(chan struct{}, 100_000)}
	if w.client, err = kubernetes.NewForConfig(config); err != nil {
		b.Fatal(err)
	}
	proxy := clustertest.Proxy(b, config, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
			w.requests.Add(1)
			if request.Method != http.MethodGet && strings.Contains(request.URL.Path, "/pods") {
				w.pods <- time.Now()
			}
			next.ServeHTTP(response, request)
		})
	})
	cmd := exec.Command(program, "watch", "-f", file, "--kubeconfig", proxy, "--events=false", "--log=json", "--full-resync=0")
	output, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	w.process = cmd.Process
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewScanner(output)
		for lines.Scan() {
			if strings.Contains(lines.Text(), `"event":"settled"`) {
				w.settled <- struct{}{}
			}
		}
		_, _ = io.Copy(io.Discard, output) // after a line that is too long
	}()
	w.wait = func() error { <-read; return cmd.Wait() }
	w.untilSettled()
	return w
}

func (w *watched) untilSettled() {
	w.Helper()
	select {
	case <-w.settled:
	case <-time.After(5 * time.Minute):
		w.Fatal("watch does not settle")
	}
}

// write waits for the next write to a pod, and returns how long after begun it
// was asked for.
func (w *watched) write(begun time.Time) time.Duration {
	w.Helper()
	select {
	case at := <-w.pods:
		return at.Sub(begun)
	case <-time.After(time.Minute):
		w.Fatal("nothing was written")
		return 0
	}
}

// memory is what the program has, in MiB.
func (w *watched) memory() float64 {
	w.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.process.Pid))
	if err != nil {
		w.Fatal(err)
	}
	found := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status)
	if found == nil {
		w.Fatalf("no VmRSS in %s", status)
	}
	size, _ := strconv.Atoi(string(found[1])) // digits
	return float64(size) / 1024
}

// stop ends the program.
func (w *watched) stop() {
	w.Helper()
	if err := w.process.Signal(os.Interrupt); err != nil {
		w.Fatal(err)
	}
	if err := w.wait(); err != nil {
		w.Fatal(err)
	}
}

// quantile is the value below which that share of the sorted times is, in
// milliseconds.
func quantile(times []time.Duration, share float64) float64 {
	return float64(times[int(share*float64(len(times)-1))].Microseconds()) / 1000
}

// BenchmarkWatch measures, with 100 sandboxes, how long it takes from a file
// that was saved to the first PATCH of a pod, and from a pod that was deleted by
// hand to its creation; what is asked while nothing happens; and how much memory
// 1000 reloads cost.
func BenchmarkWatch(b *testing.B) {
	const sandboxes, saves, deletions, idle = 100, 350, 30, 20 * time.Second
	sandboxctl := program(b)
	file := fleetFile(b, "bench-watch", sandboxes)
	original, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	applied(b, sandboxctl, file)
	w := startWatch(b, sandboxctl, file)
	before := w.requests.Load()
	<-time.After(idle) // a span that is measured
	asked := w.requests.Load() - before

	var saved, deleted []time.Duration
	var begin float64
	reloads := 0
	for b.Loop() {
		for range saves {
			reloads++
			name := fmt.Sprintf("s%05d", reloads%sandboxes)
			content := strings.Replace(string(original), name+": {template: t,", fmt.Sprintf("%s: {template: t, labels: {round: r%d},", name, reloads), 1)
			begun := save(b, file, content)
			saved = append(saved, w.write(begun))
			w.untilSettled()
			drain(w.pods) // the sandbox of the round before loses its label
			if reloads == 100 {
				begin = w.memory()
			}
		}
		for i := range deletions {
			deleted = append(deleted, w.deleted(fmt.Sprintf("s%05d", i)))
		}
	}
	end := w.memory()
	w.stop()
	slices.SortFunc(saved, cmp.Compare)
	slices.SortFunc(deleted, cmp.Compare)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(quantile(saved, 0.5), "p50-ms-saved-to-patch")
	b.ReportMetric(quantile(saved, 0.99), "p99-ms-saved-to-patch")
	b.ReportMetric(quantile(deleted, 0.5), "p50-ms-deleted-to-create")
	b.ReportMetric(quantile(deleted, 0.99), "p99-ms-deleted-to-create")
	b.ReportMetric(float64(asked)*float64(time.Minute/idle), "idle-requests/min")
	b.ReportMetric(begin, "MiB-after-100-reloads")
	b.ReportMetric(end, fmt.Sprintf("MiB-after-%d-reloads", reloads))
}

// BenchmarkFleet10000 plans 10,000 sandboxes that are as they should be, and
// watches them. They have no persistent volumes: to delete as many takes a cluster
// a quarter of an hour.
func BenchmarkFleet10000(b *testing.B) {
	sandboxctl := program(b)
	file := fleetFileWith(b, "bench-large", 10_000, "workspace: {emptyDir: 1Gi}, pod: {nodeSelector: {none: such}}")
	applied(b, sandboxctl, file)
	var took time.Duration
	var memory float64
	for b.Loop() {
		t, m := timed(b, sandboxctl, "plan", "--detailed-exitcode", "-f", file)
		took, memory = took+t, max(memory, m)
	}
	w := startWatch(b, sandboxctl, file)
	watching := w.memory()
	w.stop()
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(took.Seconds()/float64(b.N), "s/plan")
	b.ReportMetric(memory, "MiB")
	b.ReportMetric(watching, "MiB-watch")
}

// save saves a file as an editor does, and returns when.
func save(b *testing.B, path, content string) time.Time {
	b.Helper()
	beside := filepath.Join(filepath.Dir(path), ".new")
	if err := os.WriteFile(beside, []byte(content), 0o644); err != nil {
		b.Fatal(err)
	}
	begun := time.Now()
	if err := os.Rename(beside, path); err != nil {
		b.Fatal(err)
	}
	return begun
}

// deleted deletes a sandbox's pod, and returns how long after that it is made
// anew.
func (w *watched) deleted(sandbox string) time.Duration {
	w.Helper()
	const namespace = "sandboxctl-bench-watch"
	pods := w.client.CoreV1().Pods(namespace)
	list, err := pods.List(w.Context(), metav1.ListOptions{LabelSelector: "agentpane.io/sandbox-id=" + sandbox})
	if err != nil || len(list.Items) != 1 {
		w.Fatalf("%d pods, %v", len(list.Items), err)
	}
	begun := time.Now()
	if err := pods.Delete(w.Context(), list.Items[0].Name, metav1.DeleteOptions{}); err != nil {
		w.Fatal(err)
	}
	took := w.write(begun)
	w.untilSettled()
	drain(w.pods)
	return took
}

func drain(times <-chan time.Time) {
	for {
		select {
		case <-times:
		default:
			return
		}
	}
}
