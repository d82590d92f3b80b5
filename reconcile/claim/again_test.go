package claim

import (
	"cmp"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// TestDiffers: a name that was claimed before keeps what it has, and what of the
// request it does not have is told.
func TestDiffers(t *testing.T) {
	fleets, found := schema.Load([]string{"-"}, strings.NewReader(`
apiVersion: agentpane.io/v1alpha1
kind: SandboxFleet
name: f
templates:
  t: {image: "example/image:1", env: {LANG: C}}
pools:
  p: {template: t}
  q: {template: t}
`))
	if len(fleets) != 1 {
		t.Fatal(found)
	}
	client, err := NewFor(nil, fleets[0], time.Now, nil, "the test")
	if err != nil {
		t.Fatal(err)
	}
	claimed := func(r Request) *unstructured.Unstructured {
		p, err := client.pool(r.Pool)
		if err != nil {
			t.Fatal(err)
		}
		return p.Claimed(render.Claim{Sandbox: "a", Project: cmp.Or(r.Project, "a"), Env: r.Env})
	}
	before := Request{Pool: "p", Project: "shop", Env: map[string]string{"A": "1", "LANG": "de"}}
	for name, test := range map[string]struct {
		request Request
		want    []string
	}{
		"the same":             {before, nil},
		"what is not asked":    {Request{Pool: "p"}, nil},
		"less":                 {Request{Pool: "p", Env: map[string]string{"A": "1"}}, nil},
		"all":                  {Request{Pool: "q", Project: "other", Env: map[string]string{"A": "2", "B": ""}}, []string{"pool", "project", "env A", "env B"}},
		"the template's again": {Request{Pool: "p", Env: map[string]string{"LANG": "C"}}, []string{"env LANG"}},
	} {
		got := test.request.differs(claimed(test.request), claimed(before))
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}
