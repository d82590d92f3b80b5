package claim

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/pool"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// shown is a source that always shows the same.
type shown sighting

func (s shown) look(context.Context, string) (sighting, error) { return sighting(s), nil }
func (shown) took(*unstructured.Unstructured)                  {}
func (shown) tried(...*pool.Pod)                               {}
func (shown) stands(*pool.Pod) bool                            { return true }

// TestClaimThatIsAlwaysLate: a claim that finds a ready pod each time, which another
// has taken each time, starts one where the pool may grow, and gives up where not.
func TestClaimThatIsAlwaysLate(t *testing.T) {
	for _, test := range []struct {
		max, tries int
		want       failure.Code
	}{{2, contested, ""}, {1, rounds, failure.WarmPoolAllocationFailed}} {
		fleets, found := schema.Load([]string{"-"}, strings.NewReader(fmt.Sprintf(`
apiVersion: agentpane.io/v1alpha1
kind: SandboxFleet
name: f
templates: {t: {image: i/i:1, workspace: {emptyDir: 10Mi}}}
pools: {p: {template: t, min: 0, max: %d}}
`, test.max)))
		if found.HasErrors() {
			t.Fatal(found)
		}
		pools, err := render.Pools(fleets[0])
		if err != nil {
			t.Fatal(err)
		}
		taken := pools[0].PodName(0)
		tries, started := 0, 0
		s := server(func(request *http.Request) (int, string) {
			if strings.HasSuffix(request.URL.Path, "/"+taken) {
				tries++
				return status(http.StatusConflict, metav1.StatusReasonConflict, "it was changed")
			}
			started++
			return http.StatusCreated, `{"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "q", "labels": {"` + render.WarmPoolLabel + `": "true"}},
				"status": {"conditions": [{"type": "Ready", "status": "True"}]}}`
		})
		synctest.Test(t, func(t *testing.T) {
			client, err := New(&rest.Config{Host: "http://server", Transport: s, QPS: -1}, fleets[0], time.Now, func(n int) string { return strings.Repeat("0", n) }, "the test")
			if err != nil {
				t.Fatal(err)
			}
			client.gateway = "10.0.0.1"
			client.source = shown{pods: []*pool.Pod{{Name: taken, UID: "u", Ready: true, Blueprint: pools[0].Hash}}}
			_, err = client.Claim(t.Context(), Request{Pool: "p"})
			if failure.CodeOf(err) != test.want || tries != test.tries || (started == 1) != (test.want == "") {
				t.Errorf("of %d pods at most: %d tries, %d started, %v", test.max, tries, started, err)
			}
		})
	}
}
