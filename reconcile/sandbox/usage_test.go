package sandbox

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/schema"
)

func TestUsage(t *testing.T) {
	const measured = `{"kind": "PodMetricsList", "items": [
		{"metadata": {"name": "a"}, "containers": [{"usage": {"cpu": "1500001n", "memory": "20Ki"}}, {"usage": {"cpu": "1m", "memory": "1Ki"}}]},
		{"metadata": {"name": "new"}, "containers": []},
		{"metadata": {"name": "half"}, "containers": [{"usage": {"cpu": "1m"}}]}]}`
	status := func(code int, reason, message string) string {
		return fmt.Sprintf(`{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": %d, "reason": %q, "message": %q}`, code, reason, message)
	}
	const forbidden = `pods.metrics.k8s.io is forbidden: User "eve" cannot list resource "pods" in API group "metrics.k8s.io" in the namespace "n"`
	for name, test := range map[string]struct {
		code        int
		answer      string
		want        map[string]string
		unavailable string
		fails       failure.Code
	}{
		"measured":      {200, measured, map[string]string{"a": "2500001n 21Ki"}, "", ""},
		"no metrics":    {404, "404 page not found", nil, "the cluster has no metrics.k8s.io", ""},
		"out of order":  {503, status(503, "ServiceUnavailable", "m"), nil, "does not answer", ""},
		"no permission": {403, status(403, "Forbidden", forbidden), nil, "", failure.NamespaceAccessDenied},
		"nonsense":      {200, "[]", nil, "", failure.APIError},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(response http.ResponseWriter, _ *http.Request) {
			response.Header().Set("Content-Type", "application/json")
			response.WriteHeader(test.code)
			_, _ = response.Write([]byte(test.answer))
		}))
		client, err := New(&rest.Config{Host: server.URL}, &schema.Fleet{Name: "f", Namespace: "n"})
		if err != nil {
			t.Fatal(err)
		}
		usage, unavailable, err := client.Usage(t.Context())
		server.Close()
		var got map[string]string
		for pod, used := range usage {
			if got == nil {
				got = map[string]string{}
			}
			got[pod] = used.CPU.String() + " " + used.Memory.String()
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if !strings.Contains(unavailable, test.unavailable) || (unavailable == "") != (test.unavailable == "") || failure.CodeOf(err) != test.fails {
			t.Errorf("%s: unavailable %q, error %v", name, unavailable, err)
		}
	}
}
