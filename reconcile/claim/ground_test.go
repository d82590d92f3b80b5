//go:build integration || bench

package claim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	watchtools "k8s.io/client-go/tools/watch"

	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// ground is a namespace of the real cluster in which pods need no node: they
// have none, and the ground says that they are ready, as a kubelet would. So
// there can be hundreds on a small machine, and everything but what runs in them
// is real.
type ground struct {
	testing.TB
	config    *rest.Config
	client    kubernetes.Interface
	namespace string
	census    *census
}

// newGround makes a namespace whose pods are ready as soon as they are seen.
func newGround(tb testing.TB) *ground {
	tb.Helper()
	path := os.Getenv("SANDBOXCTL_TEST_KUBECONFIG")
	if path == "" {
		tb.Fatal("SANDBOXCTL_TEST_KUBECONFIG names no cluster")
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		tb.Fatal(err)
	}
	config.QPS = -1
	light := rest.CopyConfig(config) // the ground shares the machine with those who are tested
	light.ContentType = runtime.ContentTypeProtobuf
	client, err := kubernetes.NewForConfig(light)
	if err != nil {
		tb.Fatal(err)
	}
	namespace, err := client.CoreV1().Namespaces().Create(tb.Context(), &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "sandboxctl-test-claim-"},
	}, metav1.CreateOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	g := &ground{TB: tb, config: config, client: client, namespace: namespace.Name, census: newCensus()}
	tb.Cleanup(func() {
		if err := client.CoreV1().Namespaces().Delete(context.Background(), namespace.Name, metav1.DeleteOptions{}); err != nil {
			tb.Errorf("removing namespace %s: %v", namespace.Name, err)
		}
	})
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	events := g.watch(ctx)
	running.Go(func() { g.follow(ctx, events) })
	tb.Cleanup(func() { stop(); events.Stop(); running.Wait() })
	return g
}

// watch watches the pods from now on, and goes on where a busy server has ended
// it.
func (g *ground) watch(ctx context.Context) watch.Interface {
	g.Helper()
	list, err := g.client.CoreV1().Pods(g.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		g.Fatal(err)
	}
	events, err := watchtools.NewRetryWatcherWithContext(ctx, list.ResourceVersion, &cache.ListWatch{
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return g.client.CoreV1().Pods(g.namespace).Watch(ctx, options)
		},
	})
	if err != nil {
		g.Fatal(err)
	}
	return events
}

// follow takes the census, and has every pod be ready that runs nowhere.
func (g *ground) follow(ctx context.Context, events watch.Interface) {
	ready := []byte(`{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True","lastTransitionTime":"` + time.Now().UTC().Format(time.RFC3339) + `"}],` +
		`"containerStatuses":[{"name":"sandbox","ready":true,"image":"i","imageID":"i","restartCount":0,"started":true,"state":{"running":{}}}]}}`)
	made := make(chan *corev1.Pod, 10000)
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for pod := range made {
				if _, err := g.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, ready, metav1.PatchOptions{}, "status"); err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) {
					g.Errorf("making %s ready: %v", pod.Name, err)
				}
			}
		})
	}
	defer workers.Wait()
	defer close(made)
	for event := range events.ResultChan() {
		pod, ok := event.Object.(*corev1.Pod)
		if !ok {
			if ctx.Err() == nil {
				g.Errorf("watching pods: %v", event.Object)
			}
			continue
		}
		g.census.note(event.Type, pod)
		if event.Type == watch.Added && pod.Spec.SchedulerName == "none" {
			made <- pod
		}
	}
}

// census is what a watch has shown of pods, by uid: what was true at any moment.
type census struct {
	mutex sync.Mutex
	alive map[types.UID]bool
	most  int
	// sandboxes are the sandboxes that a pod ever was, pods the live pods of a
	// sandbox.
	sandboxes map[types.UID]map[string]bool
	pods      map[string]map[types.UID]bool
	// ready are the pods that nobody has claimed yet.
	ready   map[types.UID]bool
	faults  []string
	changed chan struct{}
}

func newCensus() *census {
	return &census{
		alive: map[types.UID]bool{}, sandboxes: map[types.UID]map[string]bool{}, pods: map[string]map[types.UID]bool{}, ready: map[types.UID]bool{}, changed: make(chan struct{}),
	}
}

func (c *census) note(event watch.EventType, pod *corev1.Pod) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	id := pod.Labels[render.SandboxIDLabel]
	delete(c.ready, pod.UID)
	if event == watch.Deleted {
		delete(c.alive, pod.UID)
		delete(c.pods[id], pod.UID)
	} else {
		c.alive[pod.UID] = true
		c.most = max(c.most, len(c.alive))
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue && id == "" {
				c.ready[pod.UID] = true
			}
		}
		if id != "" {
			if c.sandboxes[pod.UID] == nil {
				c.sandboxes[pod.UID] = map[string]bool{}
			}
			c.sandboxes[pod.UID][id] = true
			if len(c.sandboxes[pod.UID]) > 1 {
				c.faults = append(c.faults, fmt.Sprintf("pod %s was given to %v", pod.Name, c.sandboxes[pod.UID]))
			}
			if c.pods[id] == nil {
				c.pods[id] = map[types.UID]bool{}
			}
			c.pods[id][pod.UID] = true
			if len(c.pods[id]) > 1 {
				c.faults = append(c.faults, fmt.Sprintf("sandbox %s has %d pods", id, len(c.pods[id])))
			}
		}
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

// warm is how many pods are ready and nobody's.
func (c *census) warm() int { return len(c.ready) }

// until waits until the census is as it should be.
func (c *census) until(tb testing.TB, what string, is func() bool) {
	tb.Helper()
	timeout := time.After(2 * time.Minute)
	for {
		c.mutex.Lock()
		done, changed := is(), c.changed
		c.mutex.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			tb.Fatalf("never was: %s; %d alive, %v", what, len(c.alive), c.pods)
		}
	}
}

// check reports what must never have been.
func (c *census) check(tb testing.TB, most int) {
	tb.Helper()
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for _, fault := range c.faults {
		tb.Error(fault)
	}
	if c.most > most {
		tb.Errorf("%d pods were alive at once, and max is %d", c.most, most)
	}
}

// nowhere is a pod that no scheduler looks at: the ground has it be ready.
const nowhere = "{schedulerName: none}"

// fleetFile is a fleet with one pool; place is where its pods run.
func fleetFile(namespace, settings, workspace, place string) string {
	return fmt.Sprintf(`
apiVersion: agentpane.io/v1alpha1
kind: SandboxFleet
name: fleet
namespace: %s
podSecurity: privileged
egress: {unenforced: allow} # these tests are not about egress, and some pods run nowhere
templates:
  t:
    image: agentpane/agent-sandbox:dev
    resources: {cpu: 200m, memory: 512Mi}
    workspace: %s
    pod: %s
pools:
  p: {template: t, %s}
`, namespace, workspace, place, settings)
}

const scratch, disk = "{emptyDir: 10Mi}", "{size: 10Mi, retain: true}"

func loadFleet(tb testing.TB, file string) *schema.Fleet {
	tb.Helper()
	fleets, found := schema.Load([]string{"-"}, strings.NewReader(file))
	if found.HasErrors() {
		tb.Fatal(found)
	}
	return fleets[0]
}

// claimer returns a client, by way of a transport that may misbehave.
func (g *ground) claimer(fleet *schema.Fleet, wrap func(http.RoundTripper) http.RoundTripper) *Client {
	g.Helper()
	config := rest.CopyConfig(g.config)
	if wrap != nil {
		config.Wrap(wrap)
	}
	client, err := New(config, fleet, time.Now, testRandom, "the test")
	if err != nil {
		g.Fatal(err)
	}
	return client
}

// start has the client watch, until it is stopped.
func (g *ground) start(client *Client) func() {
	g.Helper()
	ctx, stop := context.WithCancel(g.Context())
	wait, err := client.Start(ctx)
	if err != nil {
		g.Fatal(err)
	}
	return func() { stop(); wait() }
}

var counter atomic.Int64

// testRandom makes texts that are all different, also between processes.
func testRandom(n int) string {
	text := fmt.Sprintf("%x%x", os.Getpid(), counter.Add(1))
	return strings.Repeat("0", max(0, n-len(text))) + text
}

// fill has the pool have n more ready pods.
func (g *ground) fill(client *Client, n int) {
	g.Helper()
	if added, err := client.Prewarm(g.Context(), "p", n, time.Hour); err != nil || added != n {
		g.Fatalf("prewarming: %d, %v", added, err)
	}
	g.census.until(g, "the pool is ready", func() bool { return g.census.warm() >= n })
}

// transport is a RoundTripper out of a function.
type transport func(*http.Request) (*http.Response, error)

func (t transport) RoundTrip(request *http.Request) (*http.Response, error) { return t(request) }

// writes counts what is written.
func writes(n *atomic.Int64) func(http.RoundTripper) http.RoundTripper {
	return func(next http.RoundTripper) http.RoundTripper {
		return transport(func(request *http.Request) (*http.Response, error) {
			if request.Method != http.MethodGet {
				n.Add(1)
			}
			return next.RoundTrip(request)
		})
	}
}

var errCrash = errors.New("the process has crashed")

// crash lets n writes through, and nothing after them, not even the answer of
// the last: as a process that is killed at that moment.
func crash(n int64, dead context.CancelFunc) func(http.RoundTripper) http.RoundTripper {
	var done atomic.Int64
	return func(next http.RoundTripper) http.RoundTripper {
		return transport(func(request *http.Request) (*http.Response, error) {
			if done.Load() >= n {
				return nil, errCrash
			}
			response, err := next.RoundTrip(request)
			if request.Method != http.MethodGet && done.Add(1) >= n {
				if err == nil {
					_ = response.Body.Close() // nobody reads it
				}
				dead()
				return nil, errCrash
			}
			return response, err
		})
	}
}

// result is what a process of claimers reports.
type result struct {
	Claimed   map[string]types.UID
	Exhausted int
	Errors    []string
}

func (r result) String() string {
	encoded, err := json.Marshal(r)
	if err != nil {
		panic(err) // of strings
	}
	return string(encoded)
}
