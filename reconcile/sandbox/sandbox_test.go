package sandbox

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// TestFind: of several pods, the newest that is not going away is meant; and
// what is not there is said with what is.
func TestFind(t *testing.T) {
	fleet := &schema.Fleet{Name: "f", Namespace: "n", Sandboxes: []schema.Sandbox{
		{Name: "api", State: schema.Running}, {Name: "new", State: schema.Running}, {Name: "paused", State: schema.Stopped},
	}}
	pod := func(name, sandbox string, minute int) corev1.Pod {
		return corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: "n", CreationTimestamp: metav1.Date(2026, 1, 24, 9, minute, 0, 0, time.UTC),
			Labels: map[string]string{render.PartOfLabel: render.ApplySetID(fleet), render.SandboxLabel: "true", render.SandboxIDLabel: sandbox},
		}}
	}
	going, foreign := pod("going", "api", 9), pod("foreign", "other", 0)
	going.DeletionTimestamp = &going.CreationTimestamp
	foreign.Labels[render.PartOfLabel] = "another"
	all := []corev1.Pod{going, pod("old", "api", 1), pod("newest", "api", 2), foreign, pod("undeclared", "gone", 0)}
	server := httptest.NewServer(http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		selector, err := labels.Parse(request.URL.Query().Get("labelSelector"))
		if err != nil {
			t.Error(err)
		}
		list := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}}
		for _, pod := range all {
			if selector.Matches(labels.Set(pod.Labels)) {
				list.Items = append(list.Items, pod)
			}
		}
		response.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(response).Encode(list)
	}))
	defer server.Close()
	client, err := New(&rest.Config{Host: server.URL}, fleet)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct{ pod, message, hint string }{
		"api":    {"newest", "", ""},
		"gone":   {"undeclared", "", ""},
		"new":    {"", "sandbox new has no pod in namespace n", "sandboxctl apply starts it"},
		"paused": {"", "sandbox paused is stopped", "state: running"},
		"apj":    {"", `fleet f has no sandbox "apj"`, `Did you mean "api"? It has: api, gone, new, paused`},
		"other":  {"", `fleet f has no sandbox "other"`, "It has: api, gone, new, paused"},
		"a,b":    {"", `fleet f has no sandbox "a,b"`, "It has:"},
	} {
		found, err := client.Find(t.Context(), name)
		if want.pod != "" {
			if err != nil || found.Name != want.pod {
				t.Errorf("%s: %v, %v", name, found, err)
			}
			continue
		}
		failed, ok := err.(*failure.Error)
		if !ok || failed.Code != failure.PodNotFound || failed.Message != want.message || !strings.Contains(failed.Hint, want.hint) {
			t.Errorf("%s: %+v", name, failed)
		}
	}
	if _, err := client.FindRunning(t.Context(), "api"); failure.CodeOf(err) != failure.PodNotRunning {
		t.Errorf("a pod that does not run: %v", err)
	}
}

func TestShortList(t *testing.T) {
	names := strings.Split("abcdefghijklm", "")
	if got := shortList(names); got != "a, b, c, d, e, f, g, h, i, j and 3 more" {
		t.Error(got)
	}
}
