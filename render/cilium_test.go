package render_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kube-openapi/pkg/validation/strfmt"
	"k8s.io/kube-openapi/pkg/validation/validate"

	"github.com/agentpane/sandboxctl/render"
)

// TestCiliumPolicyFitsItsSchema: what is rendered for Cilium is what Cilium's CRD lets in, and has no field that the server
// would drop. It was never run.
func TestCiliumPolicyFitsItsSchema(t *testing.T) {
	content, err := os.ReadFile("testdata/cilium/spec.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	schema := new(spec.Schema)
	if err := json.Unmarshal(content, schema); err != nil {
		t.Fatal(err)
	}
	fleet := load(t, []byte(`{apiVersion: agentpane.io/v1alpha1, kind: SandboxFleet, name: team-a, egress: {mode: cilium}, sandboxes: {a: {image: "x:1", egress: {allow: [
		{host: github.com, ports: [443, 22]}, {host: "*.example.org"}, {preset: dns}, {cidr: 203.0.113.0/24}]}}}}`))
	objects := objectsOf(t, fleet)
	i := slices.IndexFunc(objects, func(o render.Object) bool { return o.Object.GetKind() == "CiliumNetworkPolicy" })
	if i < 0 {
		t.Fatal("there is none")
	}
	policy := objects[i].Object.Object["spec"]
	if err := validate.AgainstSchema(schema, policy, strfmt.Default); err != nil {
		t.Error(err)
	}
	onlyKnown(t, "spec", policy, schema)
	for _, o := range objects {
		if o.Object.GetKind() == "Deployment" || o.Object.GetKind() == "Service" {
			t.Errorf("there is a gateway: %s", identity(o))
		}
	}
}

// TestWhatCiliumDoesNotDo is said where names are allowed.
func TestWhatCiliumDoesNotDo(t *testing.T) {
	for allow, want := range map[string]string{
		`[{preset: dns}]`:      "",
		`[{host: github.com}]`: "warning egress.mode",
	} {
		fleet := load(t, []byte(`{apiVersion: agentpane.io/v1alpha1, kind: SandboxFleet, name: team-a,
			egress: {mode: cilium, allow: `+allow+`}, sandboxes: {a: {image: "x:1"}}}`))
		_, found := render.Objects(fleet)
		var said []string
		for _, d := range found {
			said = append(said, strings.ToLower(d.Severity.String())+" "+d.Path)
		}
		if got := strings.Join(said, ", "); got != want {
			t.Errorf("%s: %q is said, want %q", allow, got, want)
		}
	}
}

// onlyKnown reports each field that the schema does not have.
func onlyKnown(t *testing.T, path string, value any, schema *spec.Schema) {
	t.Helper()
	switch value := value.(type) {
	case map[string]any:
		for key, child := range value {
			known, ok := schema.Properties[key]
			switch {
			case ok:
				onlyKnown(t, path+"."+key, child, &known)
			case schema.AdditionalProperties == nil:
				t.Errorf("%s.%s is no field", path, key)
			}
		}
	case []any:
		for _, item := range value {
			onlyKnown(t, path, item, schema.Items.Schema)
		}
	}
}
