//go:build bench

package claim

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The benchmarks claim out of pools of a real API server whose pods are on a
// simulated node, which kwok looks after: see testdata/bench.sh. Client, server,
// etcd and kwok share the machine. Each reports, of all claims together, the time from the call
// to the reply by which the sandbox can be used, and how many writes a claim
// cost, counted where requests leave the client.

// measured is what a run of claims took.
type measured struct {
	mutex  sync.Mutex // protects times and bare
	times  []time.Duration
	bare   []time.Duration // of the least that a server can be asked to write, in the same run
	writes atomic.Int64
}

// write annotates a pod, and nothing else.
func (m *measured) write(b *testing.B, g *ground, pod string) {
	begun := time.Now()
	_, err := g.client.CoreV1().Pods(g.namespace).Patch(b.Context(), pod, types.MergePatchType, []byte(`{"metadata":{"annotations":{"bare":"write"}}}`), metav1.PatchOptions{})
	took := time.Since(begun)
	if err != nil {
		b.Error(err)
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.bare = append(m.bare, took)
}

// podNames are n of the pods that there are.
func (g *ground) podNames(n int) (names []string) {
	list, err := g.client.CoreV1().Pods(g.namespace).List(g.Context(), metav1.ListOptions{Limit: int64(n)})
	if err != nil {
		g.Fatal(err)
	}
	for _, pod := range list.Items {
		names = append(names, pod.Name)
	}
	return names
}

func (m *measured) claim(b *testing.B, client *Client) {
	begun := time.Now()
	claimed, err := client.Claim(b.Context(), Request{Pool: "p"})
	took := time.Since(begun)
	if err != nil {
		b.Error(err)
		return
	}
	if !claimed.Warm {
		b.Errorf("%s started cold", claimed.Name)
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.times = append(m.times, took)
}

func (m *measured) report(b *testing.B) {
	slices.Sort(m.times)
	if len(m.times) == 0 {
		b.Fatal("nothing was claimed")
	}
	at := func(times []time.Duration, q float64) float64 {
		return float64(times[int(q*float64(len(times)-1))].Microseconds()) / 1000
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(at(m.times, 0.5), "p50-ms")
	b.ReportMetric(at(m.times, 0.9), "p90-ms")
	b.ReportMetric(at(m.times, 0.99), "p99-ms")
	if slices.Sort(m.bare); len(m.bare) > 0 {
		b.ReportMetric(at(m.bare, 0.5), "p50-ms-bare-write")
		b.ReportMetric(at(m.bare, 0.99), "p99-ms-bare-write")
	}
	b.ReportMetric(float64(m.writes.Load())/float64(len(m.times)), "writes/claim")
}

// simulatedNode makes a node that kwok looks after, and returns what has a pod
// run there.
func (g *ground) simulatedNode() (place string) {
	g.Helper()
	const simulated = "kwok.x-k8s.io/node"
	nodes, name := g.client.CoreV1().Nodes(), g.namespace
	_, err := nodes.Create(g.Context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}, Annotations: map[string]string{simulated: "fake"}},
		Spec:       corev1.NodeSpec{Taints: []corev1.Taint{{Key: simulated, Value: "fake", Effect: corev1.TaintEffectNoSchedule}}},
		Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("10k"), corev1.ResourceMemory: resource.MustParse("100Ti"), corev1.ResourcePods: resource.MustParse("20k"),
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		g.Fatal(err)
	}
	g.Cleanup(func() {
		if err := nodes.Delete(context.Background(), name, metav1.DeleteOptions{}); err != nil {
			g.Errorf("removing node %s: %v", name, err)
		}
	})
	return fmt.Sprintf("{nodeSelector: {%s: %s}, tolerations: [{key: %s, operator: Exists}]}", corev1.LabelHostname, name, simulated)
}

// started is a pool with n ready pods in that place, and a client that watches it,
// whose writes are counted.
func started(b *testing.B, m *measured, n int, place func(*ground) string) (*ground, *Client, func()) {
	b.Helper()
	var g *ground
	b.Cleanup(func() { // after the ground's own, which has the namespace go
		if g != nil {
			g.gone()
		}
	})
	g = newGround(b)
	fleet := loadFleet(b, fleetFile(g.namespace, "min: 0, max: 5000", scratch, place(g)))
	g.fill(g.claimer(fleet, nil), n)
	client := g.claimer(fleet, func(next http.RoundTripper) http.RoundTripper { return writes(&m.writes)(next) })
	return g, client, g.start(client)
}

// gone waits until the namespace is gone: the end of its pods is not to be part of
// the next benchmark.
func (g *ground) gone() {
	timeout := time.After(5 * time.Minute)
	for {
		_, err := g.client.CoreV1().Namespaces().Get(context.Background(), g.namespace, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return
		}
		select {
		case <-timeout:
			g.Errorf("namespace %s goes on to be there: %v", g.namespace, err)
			return
		case <-time.After(200 * time.Millisecond): // between two looks
		}
	}
}

// BenchmarkClaimSequential claims 100, one after the other.
func BenchmarkClaimSequential(b *testing.B) {
	var m measured
	for b.Loop() {
		g, client, stop := started(b, &m, 120, (*ground).simulatedNode)
		for range 100 {
			m.claim(b, client)
		}
		stop()
		for _, pod := range g.podNames(100) {
			m.write(b, g, pod)
		}
	}
	m.report(b)
}

// BenchmarkClaimBurst claims 150 at once out of a pool of 200.
func BenchmarkClaimBurst(b *testing.B) {
	var m measured
	for b.Loop() {
		g, client, stop := started(b, &m, 200, (*ground).simulatedNode)
		at150 := func(do func(i int)) {
			var working sync.WaitGroup
			begin := make(chan struct{})
			for i := range 150 {
				working.Go(func() {
					<-begin
					do(i)
				})
			}
			close(begin)
			working.Wait()
		}
		at150(func(int) { m.claim(b, client) })
		stop()
		pods := g.podNames(150)
		at150(func(i int) { m.write(b, g, pods[i]) })
	}
	m.report(b)
}

// claimsPerSecond and sustainedClaims are a minute of claims.
const claimsPerSecond, sustainedClaims = 30, 60 * claimsPerSecond

// BenchmarkClaimSustained claims 30 a second for a minute: out of a pool that has
// as many, and out of one of 200 that is refilled as fast.
func BenchmarkClaimSustained(b *testing.B) {
	b.Run("prefilled", func(b *testing.B) { sustain(b, sustainedClaims, 0) })
	b.Run("refilled", func(b *testing.B) { sustain(b, 200, 3) })
}

// sustain claims for a minute out of a pool of that many pods, which is refilled by
// refill at a time. The pods need no scheduler and no node, as those that start 30
// pods a second leave a small machine no time. Beside every tenth claim goes the
// least that can be written.
func sustain(b *testing.B, warm, refill int) {
	var m measured
	for b.Loop() {
		g, client, stop := started(b, &m, warm, func(*ground) string { return nowhere })
		filler := g.claimer(client.fleet, nil) // whose writes are not counted
		stopFiller := g.start(filler)
		other := g.otherPod()
		var working sync.WaitGroup
		next := time.NewTicker(time.Second / claimsPerSecond)
		for i := range sustainedClaims {
			<-next.C
			working.Go(func() { m.claim(b, client) })
			if i%10 == 0 {
				working.Go(func() { m.write(b, g, other) })
			}
			if refill > 0 && i%refill == 0 {
				working.Go(func() {
					if _, err := filler.Prewarm(g.Context(), "p", refill, time.Hour); err != nil {
						b.Error(err)
					}
				})
			}
		}
		next.Stop()
		working.Wait()
		stop()
		stopFiller()
		g.census.check(b, 5000)
	}
	m.report(b)
}

// otherPod makes a pod that is of no pool.
func (g *ground) otherPod() (name string) {
	g.Helper()
	pod, err := g.client.CoreV1().Pods(g.namespace).Create(g.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "other-"},
		Spec:       corev1.PodSpec{SchedulerName: "none", Containers: []corev1.Container{{Name: "sandbox", Image: "i"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		g.Fatal(err)
	}
	return pod.Name
}
