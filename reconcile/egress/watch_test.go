package egress

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	cachetesting "k8s.io/client-go/tools/cache/testing"
	"k8s.io/klog/v2"

	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// apiServer answers all requests with its status. It has the gateway's Service and
// its ConfigMap, and no pod.
type apiServer struct {
	*httptest.Server
	status atomic.Int64
}

func newAPIServer(t *testing.T, status int) *apiServer {
	t.Helper()
	server := &apiServer{}
	server.status.Store(int64(status))
	server.Server = httptest.NewServer(server)
	t.Cleanup(server.Close)
	return server
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if status := int(s.status.Load()); status != http.StatusOK {
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"apiVersion": "v1", "kind": "Status", "status": "Failure", "message": "as the test wants", "code": %d}`, status)
		return
	}
	kind, object := "Pod", ""
	switch path.Base(r.URL.Path) {
	case "services":
		kind, object = "Service", `"spec": {"clusterIP": "10.0.0.1"}`
	case "configmaps":
		kind, object = "ConfigMap", `"data": {"egress.json": "{\"fleet\": \"f\"}"}`
	}
	if object != "" {
		object = fmt.Sprintf(`{"apiVersion": "v1", "kind": %q, "metadata": {"name": "egress-gateway-f", "resourceVersion": "1"}, %s}`, kind, object)
	}
	if r.URL.Query().Get("watch") == "" {
		fmt.Fprintf(w, `{"apiVersion": "v1", "kind": "%sList", "metadata": {"resourceVersion": "1"}, "items": [%s]}`, kind, object)
		return
	}
	if object != "" {
		fmt.Fprintf(w, `{"type": "ADDED", "object": %s}`, object)
	}
	fmt.Fprintf(w, `{"type": "BOOKMARK", "object": {"apiVersion": "v1", "kind": %q, "metadata": {"resourceVersion": "1", "annotations": {%q: "true"}}}}`,
		kind, metav1.InitialEventsAnnotationKey)
	_ = http.NewResponseController(w).Flush() // the response is a real one
	<-r.Context().Done()
}

// failed is how often a gateway failed to do something.
func failed(t *testing.T, registry *prometheus.Registry, what string) (times int) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if labels := metric.GetLabel(); family.GetName() == "sandboxctl_egress_failures_total" && labels[0].GetValue() == what {
				times += int(metric.GetCounter().GetValue())
			}
		}
	}
	return times
}

// TestRefusedWatch: an API server that answers, and tells this gateway nothing,
// makes it unready after a while; one that is away does not.
func TestRefusedWatch(t *testing.T) {
	type answer struct {
		status int
		after  time.Duration
		ready  bool
	}
	const moment = time.Second
	for name, answers := range map[string][]answer{
		"for a moment":           {{403, 0, true}, {403, 59 * time.Second, true}, {200, time.Hour, true}, {403, moment, true}},
		"for long":               {{200, 0, true}, {403, moment, true}, {403, patience, true}, {403, moment, false}, {200, moment, true}},
		"as nobody it knows":     {{401, 0, true}, {401, patience + moment, false}, {200, moment, true}},
		"before it is away":      {{403, 0, true}, {403, patience + moment, false}, {503, moment, false}, {200, moment, true}},
		"before and after that":  {{403, 0, true}, {503, moment, true}, {403, time.Hour, true}, {403, moment, true}},
		"and knows no such list": {{403, 0, true}, {422, moment, true}, {403, patience, false}},
		"not, but is away":       {{500, 0, true}, {500, time.Hour, true}},
	} {
		now := time.Now()
		registry := prometheus.NewRegistry()
		g := New(Options{Now: func() time.Time { return now }, Metrics: registry})
		close(g.listening)
		g.SetConfig(render.GatewayConfig{Fleet: "f"})
		g.SetService("egress-gateway-f", netip.MustParseAddr("10.0.0.1"))
		g.SetComplete()
		server := newAPIServer(t, http.StatusOK)
		client, err := coreClient(&rest.Config{Host: server.URL})
		if err != nil {
			t.Fatal(err)
		}
		from := g.noted("pods", cache.NewListWatchFromClient(client, "pods", "n", fields.Everything()))
		failures := 0
		for i, answer := range answers {
			server.status.Store(int64(answer.status))
			now = now.Add(answer.after)
			if events, err := from.WatchWithContext(t.Context(), metav1.ListOptions{}); err == nil {
				events.Stop()
			} else {
				failures++
			}
			if got := g.unready(); (got == "") != answer.ready || got != "" && !strings.Contains(got, "refuses to tell it of pods: ") {
				t.Errorf("%s: after answer %d it is not ready as %q", name, i, got)
			}
		}
		if got := failed(t, registry, "watch"); got != failures {
			t.Errorf("%s: %d failures are counted, want %d", name, got, failures)
		}
	}
}

// TestWatchGoesOn: what is refused is asked for again, and takes effect. Nothing but
// the count tells of it: client-go's own words would be in the audit log.
func TestWatchGoesOn(t *testing.T) {
	var words bytes.Buffer
	t.Cleanup(klog.CaptureState().Restore)
	klog.LogToStderr(false)
	klog.SetOutput(&words)
	server := newAPIServer(t, http.StatusForbidden)
	registry := prometheus.NewRegistry()
	g := New(Options{Now: time.Now, Metrics: registry})
	close(g.listening)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := g.Watch(ctx, &rest.Config{Host: server.URL}, "n", &schema.Fleet{Name: "f"}); err != nil {
			t.Error(err)
		}
	})
	defer running.Wait()
	defer cancel()
	wait := func(what string, check func() bool) {
		deadline, tick := time.After(20*time.Second), time.NewTicker(5*time.Millisecond)
		defer tick.Stop()
		for !check() {
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatalf("after 20s, still not: %s", what)
			}
		}
	}
	wait("a refused list and a refused watch of three resources", func() bool { return failed(t, registry, "watch") >= 6 })
	if got := g.unready(); !strings.Contains(got, "does not know") {
		t.Errorf("while it is refused, it is not ready as %q", got)
	}
	server.status.Store(http.StatusOK)
	wait("the gateway to be ready", func() bool { return g.unready() == "" })
	cancel()
	running.Wait()
	klog.Flush()
	if n := failed(t, registry, "config"); n > 0 || words.Len() > 0 {
		t.Errorf("%d failures with a good ConfigMap, and these words: %s", n, words.String())
	}
}

// TestBrokenConfig changes nothing, and is counted.
func TestBrokenConfig(t *testing.T) {
	registry := prometheus.NewRegistry()
	g := New(Options{Now: time.Now, Metrics: registry})
	client := netip.MustParseAddr("10.0.0.2")
	g.SetPod("1", Identity{List: "l"}, client)
	configMap := func(key, text string) *corev1.ConfigMap { return &corev1.ConfigMap{Data: map[string]string{key: text}} }
	const good = `{"fleet": "f", "lists": {"l": {"hosts": [{"host": "allowed.test", "ports": [443]}]}}}`
	g.seeConfig(configMap(render.GatewayConfigKey, good))
	for failures, broken := range []*corev1.ConfigMap{
		configMap("another", good), configMap(render.GatewayConfigKey, good[:20]), configMap(render.GatewayConfigKey, ""), {},
	} {
		g.seeConfig(broken)
		if _, v := g.Authorize(client, "allowed.test", 443); v != allowed {
			t.Errorf("%v has an effect: %s", broken.Data, v)
		}
		if got := failed(t, registry, "config"); got != failures+1 {
			t.Errorf("%v: %d failures, want %d", broken.Data, got, failures+1)
		}
	}
}

// TestWatchKeepsIdentitiesOnly: of a pod, what says who it is.
func TestWatchKeepsIdentitiesOnly(t *testing.T) {
	pod := func() *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p", UID: "u", Labels: map[string]string{"some": "label"}},
			Spec:       corev1.PodSpec{HostNetwork: true},
			Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}}},
		}
	}
	whole := pod()
	whole.Annotations = map[string]string{"a": "long text"}
	whole.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "somebody"}}
	whole.Spec.Containers = []corev1.Container{{Name: "c", Image: "i"}}
	whole.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c"}}
	source := cachetesting.NewFakeControllerSource()
	defer source.Shutdown()
	source.Add(whole)

	ctx, cancel := context.WithCancel(t.Context())
	seen := make(chan *corev1.Pod, 1)
	controller := inform(source, keepIdentity, func(pod *corev1.Pod) { seen <- pod }, func(*corev1.Pod) {})
	var running sync.WaitGroup
	running.Go(func() { controller.RunWithContext(ctx) })
	got := <-seen
	cancel()
	running.Wait()
	want := pod()
	want.ResourceVersion = got.ResourceVersion
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what is kept (-want +got):\n%s", diff)
	}
}
