//go:build integration

package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/render"
)

// What others do to a fleet, or to the program, while watch runs. Whatever it
// is, watch goes on, and the fleet is as the file says when it is over.

// line is a way to the cluster that can fail.
type line struct {
	mutex       sync.Mutex // protects what follows
	connections context.Context
	end         context.CancelFunc
	down        bool
}

// as is the trial as a user of the kubeconfig sees it, by way of a line.
func (r trial) as(kubeconfig string) (user trial, l *line) {
	r.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	r.must(err)
	user, l = r, &line{}
	user.cluster.Config = config
	l.connections, l.end = context.WithCancel(r.Context())
	user.kubeconfig = user.through(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
			l.mutex.Lock()
			lasts, down := l.connections, l.down
			l.mutex.Unlock()
			if down {
				panic(http.ErrAbortHandler)
			}
			ctx, cancel := context.WithCancel(request.Context())
			defer cancel()
			defer context.AfterFunc(lasts, cancel)()
			next.ServeHTTP(response, request.WithContext(ctx))
		})
	})
	return user, l
}

// cut breaks off all connections, and has new ones fail for as long as it is
// down.
func (l *line) cut(down bool) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.end()
	l.connections, l.end = context.WithCancel(context.Background())
	l.down = down
}

// mend has the line work again.
func (l *line) mend() {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.down = false
}

// removePolicy removes a rule of the fleet, which watch is to mend.
func (r trial) removePolicy() {
	r.Helper()
	r.must(r.cluster.Client.NetworkingV1().NetworkPolicies(r.namespace).Delete(r.Context(), "sandbox-default-deny-trial", metav1.DeleteOptions{}))
}

// TestWatchWithoutPermission: what watch may do is taken from it while it runs,
// and given back, and that again. Each time it is told what it lacks.
func TestWatchWithoutPermission(t *testing.T) {
	r := newTrial(t)
	user, line := r.as(r.asUser("", ""))
	file := r.file("", "  a: {template: t}\n  b: {template: t}\n")
	counted, stop := r.countPods()
	w := user.watch(file, "--events=false")
	w.settled()
	bindings := r.cluster.Client.RbacV1().RoleBindings(r.namespace)
	name := r.namespace + "-user"
	granted, err := bindings.Get(t.Context(), name, metav1.GetOptions{})
	r.must(err)
	give := func() {
		_, err := bindings.Create(t.Context(), &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Subjects: granted.Subjects, RoleRef: granted.RoleRef,
		}, metav1.CreateOptions{})
		r.must(err)
	}
	theirs, err := kubernetes.NewForConfig(user.cluster.Config)
	r.must(err)
	take := func() {
		r.must(bindings.Delete(t.Context(), name, metav1.DeleteOptions{}))
		r.eventually("the server knows that it may not", func(ctx context.Context) bool {
			_, err := theirs.NetworkingV1().NetworkPolicies(r.namespace).List(ctx, metav1.ListOptions{})
			return apierrors.IsForbidden(err)
		})
	}
	mended := func() { w.await("event", "changed", "kind", "NetworkPolicy", "action", "create") }
	for range 2 {
		take() // what is open stays so, and what is written is refused
		r.removePolicy()
		w.await("event", "failed", "code", string(failure.NamespaceAccessDenied), "msg", "networkpolicies")
		give()
		mended()
		w.settled()

		take()
		line.cut(false)
		w.await("event", "unreachable", "code", string(failure.NamespaceAccessDenied))
		r.removePolicy() // unseen
		give()
		mended()
		w.settled()
		r.removePolicy()
		mended() // it is seen again
		w.settled()
		r.noChanges(file)
	}
	w.end()
	stop()
	r.were(counted, 2, 0)
}

// TestConflictStorm: another manager writes to a pod 50 times a second. It is
// soon left alone, which is told, and is as the file says when the other one has
// had enough: at once when the file is saved, else when the pause is over.
func TestConflictStorm(t *testing.T) {
	r := newTrial(t)
	file := r.file("", oneSandbox)
	w := r.watch(file)
	w.settled()
	counted, stop := r.countPods()
	pods, pod := r.cluster.Client.CoreV1().Pods(r.namespace), r.podOf("a")
	ctx, calm := context.WithCancel(t.Context())
	defer calm()
	var storm sync.WaitGroup
	var writes atomic.Int64
	for range 4 { // a server that is busy takes its time for each
		storm.Go(func() {
			for ctx.Err() == nil {
				patch := fmt.Appendf(nil, `{"metadata":{"labels":{%q:"rival-%d"}}}`, render.ProjectIDLabel, writes.Add(1))
				if _, err := pods.Patch(t.Context(), pod.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "kubectl-rival"}); err != nil {
					t.Error(err)
				}
				<-time.After(80 * time.Millisecond) // its share of 50 a second
			}
		})
	}
	<-time.After(span(time.Second, time.Minute)) // how long it lasts at least
	w.await("event", "flapping", "sandbox", "a", "msg", "kubectl-rival")
	calm()
	storm.Wait()
	t.Logf("%d writes of the other manager", writes.Load())
	want := maps.Clone(pod.Labels)
	if !soaking() {
		r.file("", "  a: {template: t, labels: {x: y}}\n")
		want["x"] = "y"
	}
	for deadline := time.Now().Add(5 * time.Minute); !maps.Equal(r.podOf("a").Labels, want); {
		if time.Now().After(deadline) {
			t.Fatalf("the labels are %v, and were to be %v", r.podOf("a").Labels, want)
		}
		<-time.After(100 * time.Millisecond) // a span between two looks
	}
	w.end()
	stop()
	r.were(counted, 0, 0)
	r.noChanges(file)
}

// TestFullResyncThatFails: the server is asked again as soon as a scope is tried
// again, and not only when the next one is due.
func TestFullResyncThatFails(t *testing.T) {
	r := newTrial(t)
	file := r.file("", oneSandbox)
	var fails atomic.Bool
	var asked atomic.Int64
	r.kubeconfig = r.through(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
			if request.URL.Query().Has("dryRun") && strings.Contains(request.URL.Path, "/pods/") {
				asked.Add(1)
				if fails.CompareAndSwap(true, false) {
					http.Error(response, "not now", http.StatusServiceUnavailable)
					return
				}
			}
			next.ServeHTTP(response, request)
		})
	})
	w := r.watch(file, "--full-resync=10s")
	w.settled()
	before := asked.Load()
	fails.Store(true)
	w.await("event", "failed", "sandbox", "a", "msg", "503")
	w.settled()
	if n := asked.Load() - before; n != 2 {
		t.Errorf("the server was asked about the pod %d times, want once more than it failed", n)
	}
}

// TestPodsThatGo: a pod that somebody evicts or deletes comes back, made once;
// one that ran out of memory is started again by the kubelet.
func TestPodsThatGo(t *testing.T) {
	t.Parallel()
	for name, ended := range map[string]struct {
		end func(trial, *corev1.Pod)
		// made is how many pods come for it.
		made int
	}{
		"evicted": {func(r trial, pod *corev1.Pod) {
			r.must(r.cluster.Client.PolicyV1().Evictions(r.namespace).Evict(r.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: r.namespace}}))
		}, 1},
		"deleted": {func(r trial, pod *corev1.Pod) {
			r.must(r.cluster.Client.CoreV1().Pods(r.namespace).Delete(r.Context(), pod.Name, metav1.DeleteOptions{}))
		}, 1},
		"deleted by force": {func(r trial, pod *corev1.Pod) {
			now := int64(0)
			r.must(r.cluster.Client.CoreV1().Pods(r.namespace).Delete(r.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}))
		}, 1},
		"out of memory": {func(r trial, pod *corev1.Pod) {
			_, stderr, err := r.cluster.Exec(r.Context(), pod, "touch", "/workspace/eat")
			if err != nil {
				r.Fatal(err, stderr)
			}
			r.eventually("the container ran out of memory", func(context.Context) bool {
				state := r.podOf("a").Status.ContainerStatuses[0].LastTerminationState.Terminated
				return state != nil && state.Reason == "OOMKilled"
			})
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTrial(t)
			const eats = `until rm /workspace/eat 2>/dev/null; do sleep 0.2; done; exec tail /dev/zero`
			file := r.file("", fmt.Sprintf("  a: {template: t, pod: {containers: [{name: sandbox, command: [/bin/sh, -c, %q]}]}}\n  b: {template: t}\n", eats))
			w := r.watch(file)
			w.settled()
			w.await("event", "ready", "sandbox", "a")
			counted, stop := r.countPods()
			before := r.podOf("a")
			ended.end(r, before)
			r.eventually("the sandbox is ready again", func(context.Context) bool {
				pods, err := r.cluster.Client.CoreV1().Pods(r.namespace).List(r.Context(), metav1.ListOptions{LabelSelector: render.SandboxIDLabel + "=a"})
				r.must(err)
				return len(pods.Items) == 1 && isReady(&pods.Items[0]) && (pods.Items[0].UID != before.UID) == (ended.made > 0)
			})
			w.end()
			stop()
			r.were(counted, ended.made, ended.made)
			r.noChanges(file)
		})
	}
}

func isReady(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// TestQuotaOfSomebodyElse is full when the fleet comes, and freed later, of
// which watch is not told.
func TestQuotaOfSomebodyElse(t *testing.T) {
	r := newTrial(t)
	quotas := r.cluster.Client.CoreV1().ResourceQuotas(r.namespace)
	_, err := quotas.Create(t.Context(), &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "theirs"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1")}},
	}, metav1.CreateOptions{})
	r.must(err)
	r.eventually("the quota is in force", func(context.Context) bool {
		quota, err := quotas.Get(t.Context(), "theirs", metav1.GetOptions{})
		r.must(err)
		return len(quota.Status.Hard) > 0
	})
	counted, stop := r.countPods()
	file := r.file("", "  a: {template: t}\n  b: {template: t}\n")
	w := r.watch(file)
	w.await("event", "failed", "code", string(failure.InsufficientResources), "msg", "theirs")
	_, err = quotas.Patch(t.Context(), "theirs", types.MergePatchType, []byte(`{"spec":{"hard":{"pods":"2"}}}`), metav1.PatchOptions{})
	r.must(err)
	w.settled()
	w.end()
	stop()
	r.were(counted, 2, 0)
	r.noChanges(file)
}

// TestFinalizerThatHangs: a pod that somebody holds on its way out gets no
// other beside it, and one when it has gone.
func TestFinalizerThatHangs(t *testing.T) {
	r := newTrial(t)
	file := r.file("", oneSandbox)
	w := r.watch(file, "--resync=100ms")
	w.settled()
	counted, stop := r.countPods()
	pod := r.podOf("a")
	r.editPod(pod, "somebody", `{"metadata":{"finalizers":["test.invalid/hold"]}}`)
	now := int64(0)
	r.must(r.cluster.Client.CoreV1().Pods(r.namespace).Delete(t.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}))
	r.removePolicy() // the rest of the fleet does not wait for it
	w.await("event", "changed", "kind", "NetworkPolicy", "action", "create")
	<-time.After(span(2*time.Second, 30*time.Second)) // a span in which nothing is to happen
	r.were(counted, 0, 0)
	r.editPod(pod, "somebody", `{"metadata":{"finalizers":null}}`)
	w.settled()
	w.end()
	stop()
	r.were(counted, 1, 1)
	r.noChanges(file)
}

// TestClockThatJumps: an hour to and fro is nothing that a sandbox, a warm pod
// or a claim is to suffer from, as each has longer than that.
func TestClockThatJumps(t *testing.T) {
	r := newTrial(t)
	var ahead atomic.Int64
	r.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	file := r.file("pools: {p: {template: t, min: 1, max: 3, replenish: 1s, autoscale: false}}\n",
		"  a: {template: t, idle: {after: 3h, action: stop}}\n  b: {template: t}\n")
	w := r.watch(file, "--resync=100ms")
	w.settled()
	w.await("event", "ready", "msg", "agentpane-warm-p-")
	r.done(r.run("claim", "-f", file, "--pool", "p", "--project", "x", "--ttl", "3h"))
	w.await("event", "pool-changed", "pool", "p")
	w.await("event", "ready", "msg", "agentpane-warm-p-") // one that is not could have been so for an hour
	counted, stop := r.countPods()
	for _, hours := range []int64{1, 0, -1, 1, 0} {
		ahead.Store(hours * int64(time.Hour))
		r.removePolicy()
		w.await("event", "changed", "kind", "NetworkPolicy", "action", "create")
		w.settled()
	}
	w.end()
	stop()
	r.were(counted, 0, 0)
	r.noChanges(file)
}
