//go:build integration

package claim

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/render"
)

// TestCrashAfterEachWrite kills a claim after its first, second, … write. Who
// claims the name again gets one pod, and after its release nothing is left.
func TestCrashAfterEachWrite(t *testing.T) {
	for name, test := range map[string]struct {
		workspace string
		warm      int
	}{"warm": {scratch, 2}, "cold": {scratch, 0}, "warm with a volume": {disk, 2}, "cold with a volume": {disk, 0}} {
		t.Run(name, func(t *testing.T) {
			g := newGround(t)
			fleet := loadFleet(t, fleetFile(g.namespace, "min: 0, max: 9", test.workspace, nowhere))
			healthy := g.claimer(fleet, nil)
			whole := false
			for n := int64(1); !whole && n < 10; n++ {
				if test.warm > 0 {
					g.fill(healthy, 1)
				}
				request := Request{Pool: "p", Name: fmt.Sprintf("s%d", n)}
				ctx, dead := context.WithCancel(t.Context())
				_, err := g.claimer(fleet, crash(n, dead)).Claim(ctx, request)
				whole = err == nil
				dead()
				first, err := healthy.Claim(t.Context(), request)
				if err != nil {
					t.Fatalf("after a crash at write %d: %v", n, err)
				}
				again, err := healthy.Claim(t.Context(), request)
				if err != nil || again.UID != first.UID || !again.Again {
					t.Errorf("claimed again, it is %+v, %v; first it was %+v", again, err, first)
				}
				if _, err := healthy.Release(t.Context(), request.Name); err != nil {
					t.Error(err)
				}
				g.census.until(t, "its pod is gone", func() bool { return len(g.census.pods[request.Name]) == 0 })
			}
			if !whole {
				t.Error("no claim ever came to its end")
			}
			g.census.check(t, 9)
			g.nothingLeft(healthy)
		})
	}
}

// nothingLeft deletes what is still warm, and waits until Kubernetes has removed
// what belonged to any pod, but for retained workspaces.
func (g *ground) nothingLeft(client *Client) {
	g.Helper()
	if err := g.client.CoreV1().Pods(g.namespace).DeleteCollection(g.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: render.WarmStateLabel + "=" + render.Warm}); err != nil {
		g.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(g.Context(), 60*time.Second)
	defer cancel()
	for {
		leases, err := g.client.CoordinationV1().Leases(g.namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			g.Fatal(err)
		}
		volumes, err := g.client.CoreV1().PersistentVolumeClaims(g.namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			g.Fatal(err)
		}
		left := 0
		for _, volume := range volumes.Items {
			if volume.Labels[render.SandboxIDLabel] == "" {
				left++
			}
		}
		if len(leases.Items)+left == 0 {
			return
		}
		events, err := g.client.CoordinationV1().Leases(g.namespace).Watch(ctx, metav1.ListOptions{ResourceVersion: leases.ResourceVersion, TimeoutSeconds: new(int64(1))})
		if err != nil {
			g.Fatalf("%d leases and %d volumes are left: %v", len(leases.Items), left, err)
		}
		<-events.ResultChan()
		events.Stop()
	}
}

// TestClaim follows one client with a watch through a claim's life.
func TestClaim(t *testing.T) {
	g := newGround(t)
	fleet := loadFleet(t, fleetFile(g.namespace, "min: 0, max: 3", scratch, nowhere))
	var written atomic.Int64
	client := g.claimer(fleet, writes(&written))
	g.fill(g.claimer(fleet, nil), 1) // by then the ground's own watch runs
	before := goleak.IgnoreCurrent()
	ctx, stop := context.WithCancel(t.Context())
	wait, err := client.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	g.seen(client, 1)

	written.Store(0)
	warm, err := client.Claim(t.Context(), Request{Pool: "p", Project: "api", Env: map[string]string{"A": "1"}})
	if err != nil {
		t.Fatal(err)
	}
	if !warm.Warm || written.Load() != 1 || warm.Project != "api" || !warm.Until.After(time.Now()) {
		t.Errorf("claimed %+v with %d writes; want a warm one with 1", warm, written.Load())
	}
	pod, err := g.client.CoreV1().Pods(g.namespace).Get(t.Context(), warm.Pod, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if pod.Annotations[render.EnvAnnotation] != `{"A":"1"}` || pod.Labels[render.EgressLabel] == "" || pod.Annotations[render.ClaimedByAnnotation] != "the test" {
		t.Errorf("the pod is %v %v", pod.Labels, pod.Annotations)
	}
	cold, err := client.Claim(t.Context(), Request{Pool: "p", Name: "mine"})
	if err != nil || cold.Warm {
		t.Errorf("of an empty pool: %+v, %v", cold, err)
	}
	if _, err := client.Claim(t.Context(), Request{Pool: "p"}); err != nil {
		t.Errorf("the last one: %v", err)
	}
	if _, err := client.Claim(t.Context(), Request{Pool: "p"}); failure.CodeOf(err) != failure.WarmPoolExhausted {
		t.Errorf("one too many: %v", err)
	}
	if _, err := client.Claim(t.Context(), Request{Pool: "q"}); failure.CodeOf(err) != failure.WarmPoolNotEnabled {
		t.Errorf("of no pool: %v", err)
	}
	renewed, err := client.Renew(t.Context(), "mine", 3*time.Hour)
	if err != nil || time.Until(renewed.Until) < 2*time.Hour || !renewed.Again {
		t.Errorf("renewed: %+v, %v", renewed, err)
	}
	late := g.claimer(fleet, nil)
	late.now = func() time.Time { return time.Now().Add(4 * time.Hour) }
	if _, err := late.Claim(t.Context(), Request{Pool: "p", Name: "mine"}); failure.CodeOf(err) != failure.PodAlreadyExists || !strings.Contains(err.Error(), "ran out") {
		t.Errorf("one whose time is over: %v", err)
	}
	pools, err := client.Pools(t.Context())
	if err != nil || len(pools) != 1 || len(pools[0].Claims()) != 3 {
		t.Fatalf("the pools are %+v, %v", pools, err)
	}
	if m := pools[0].Metrics(); m.AllocatedPods != 3 || m.WarmPoolHits != 1 || m.WarmPoolMisses != 2 || m.TotalAllocations != 3 {
		t.Errorf("the metrics are %+v", m)
	}
	if _, err := client.Release(t.Context(), warm.Name); err != nil {
		t.Error(err)
	}
	if _, err := client.Release(t.Context(), "nobody"); failure.CodeOf(err) != failure.WarmPodNotFound {
		t.Errorf("releasing nothing: %v", err)
	}
	g.census.until(t, "the released pod is gone", func() bool { return !g.census.alive[warm.UID] })
	pools, err = client.Pools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if m := pools[0].Metrics(); m.AllocatedPods != 2 || m.WarmPoolHits != 1 || m.TotalAllocations != 3 {
		t.Errorf("after a release, the metrics are %+v", m)
	}
	stop()
	wait()
	client.api = nil
	if err := goleak.Find(before, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
		goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*ClientConn).readLoop"), goleak.IgnoreAnyFunction("internal/poll.runtime_pollWait")); err != nil {
		t.Error(err)
	}
}

// TestLeaseThatIsTooShort runs out before the pod has started.
func TestLeaseThatIsTooShort(t *testing.T) {
	g := newGround(t)
	client := g.claimer(loadFleet(t, fleetFile(g.namespace, "min: 0, max: 1", scratch, "{nodeSelector: {there-is: none}}")), nil)
	claimed := make(chan error, 1)
	go func() {
		_, err := client.Claim(t.Context(), Request{Pool: "p", TTL: time.Millisecond})
		claimed <- err
	}()
	g.census.until(t, "the pod is there", func() bool { return len(g.census.alive) == 1 })
	if err := g.client.CoreV1().Pods(g.namespace).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil { // as the next reconcile does
		t.Fatal(err)
	}
	err := <-claimed
	failed, ok := errors.AsType[*failure.Error](err)
	if !ok || failed.Code != failure.WarmPodNotFound || !strings.Contains(failed.Hint, "lease has run out") {
		t.Errorf("it failed with %v", err)
	}
}

// seen waits until a client's watch has shown n ready pods.
func (g *ground) seen(client *Client, n int) {
	g.Helper()
	timeout := time.After(time.Minute)
	for {
		seen, err := client.source.look(g.Context(), "p")
		if err != nil {
			g.Fatal(err)
		}
		ready := 0
		for i := range seen.pods {
			if seen.pods[i].Ready && seen.pods[i].Claim == nil {
				ready++
			}
		}
		if ready >= n {
			return
		}
		g.census.mutex.Lock()
		changed := g.census.changed
		g.census.mutex.Unlock()
		select {
		case <-changed:
		case <-time.After(100 * time.Millisecond): // its own watch is another
		case <-timeout:
			g.Fatalf("the client never saw %d ready pods", n)
		}
	}
}

// TestDrainedNode: the pods of a node that takes no more are not handed out.
func TestDrainedNode(t *testing.T) {
	g := newGround(t)
	client := g.claimer(loadFleet(t, fleetFile(g.namespace, "min: 0, max: 3", scratch, nowhere)), nil)
	node, err := g.client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "drained-"}, Spec: corev1.NodeSpec{Unschedulable: true},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.client.CoreV1().Nodes().Delete(context.Background(), node.Name, metav1.DeleteOptions{}) }) // or it is gone
	g.fill(client, 1)
	pods, err := client.Pods(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	err = g.client.CoreV1().Pods(g.namespace).Bind(t.Context(), &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: pods[0].Name, Namespace: g.namespace}, Target: corev1.ObjectReference{Kind: "Node", Name: node.Name},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	claimed, err := client.Claim(t.Context(), Request{Pool: "p"})
	if err != nil || claimed.Warm || claimed.UID == pods[0].UID {
		t.Errorf("claimed %+v, %v: it is on a drained node", claimed, err)
	}
	if _, err := g.client.CoreV1().Pods(g.namespace).Get(t.Context(), pods[0].Name, metav1.GetOptions{}); apierrors.IsNotFound(err) {
		t.Error("the pod on the drained node is gone: nothing was tested")
	}
}
