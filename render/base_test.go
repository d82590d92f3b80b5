package render_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/agentpane/sandboxctl/manifests"
	"github.com/agentpane/sandboxctl/render"
)

// TestDefaultsAreTheManifests shows that a fleet that says nothing is exactly what stands in manifests/, but for what
// makes it this fleet's.
func TestDefaultsAreTheManifests(t *testing.T) {
	fleet := load(t, []byte("{apiVersion: agentpane.io/v1alpha1, kind: SandboxFleet, name: team-a}"))
	objects, found := render.Objects(fleet)
	if len(found) > 0 {
		t.Fatal(found)
	}
	base, err := manifests.Objects()
	if err != nil {
		t.Fatal(err)
	}
	if len(objects) != len(base) || base[0].GetKind() != "Namespace" {
		t.Errorf("%d objects, want %d, a namespace first", len(objects), len(base))
	}
	for _, want := range base {
		i := slices.IndexFunc(objects, func(o render.Object) bool { return o.Object.GetKind() == want.GetKind() })
		if i < 0 {
			t.Errorf("no %s", want.GetKind())
			continue
		}
		if diff := cmp.Diff(want.Object, unfleeted(objects[i].Object).Object); diff != "" {
			t.Errorf("%s: -want +got\n%s", want.GetKind(), diff)
		}
	}
}

// unfleeted returns the object without the labels and the ends of names that make it a fleet's own.
func unfleeted(object *unstructured.Unstructured) *unstructured.Unstructured {
	var strip func(value any) any
	strip = func(value any) any {
		switch value := value.(type) {
		case map[string]any:
			maps.DeleteFunc(value, func(key string, _ any) bool { return key == render.FleetLabel || key == render.PartOfLabel })
			for key, child := range value {
				value[key] = strip(child)
			}
		case []any:
			for i, item := range value {
				value[i] = strip(item)
			}
		case string:
			return strings.TrimSuffix(strings.TrimSuffix(value, "-agentpane-sandboxes.team-a"), "-team-a")
		}
		return value
	}
	object = object.DeepCopy()
	strip(object.Object)
	return object
}

// TestPodSecurityVersion: the newest version at which the library's checks changed is the one that is enforced.
func TestPodSecurityVersion(t *testing.T) {
	newest := api.MajorMinorVersion(1, 0)
	for _, check := range policy.DefaultChecks() {
		for _, version := range check.Versions {
			if newest.Older(version.MinimumVersion) {
				newest = version.MinimumVersion
			}
		}
	}
	if newest.String() != render.PodSecurityVersion {
		t.Errorf("PodSecurityVersion is %s, the library's checks are of %s", render.PodSecurityVersion, newest.String())
	}
}

// TestRulesNameWhatTheyAllow: no wildcard, and nothing of Secrets.
func TestRulesNameWhatTheyAllow(t *testing.T) {
	base, err := manifests.Objects()
	if err != nil {
		t.Fatal(err)
	}
	for _, object := range base {
		rules, _, err := unstructured.NestedSlice(object.Object, "rules")
		if err != nil {
			t.Fatal(err)
		}
		for _, rule := range rules {
			for part, values := range rule.(map[string]any) {
				for _, value := range values.([]any) {
					if value == "*" || value == "secrets" || value == "escalate" || value == "bind" || value == "impersonate" {
						t.Errorf("%s: %s has %q", object.GetName(), part, value)
					}
				}
			}
		}
	}
}

// TestRoleCoversAllKinds: what a fleet is made of, the role can bring about, but for what lies outside of the namespace.
func TestRoleCoversAllKinds(t *testing.T) {
	base, err := manifests.Objects()
	if err != nil {
		t.Fatal(err)
	}
	granted := make(map[string][]any) // the verbs, by namespaced and group/resource
	for _, object := range base {
		rules, _, _ := unstructured.NestedSlice(object.Object, "rules")
		for _, rule := range rules {
			rule := rule.(map[string]any)
			for _, group := range rule["apiGroups"].([]any) {
				for _, resource := range rule["resources"].([]any) {
					granted[object.GetKind()+" "+group.(string)+"/"+resource.(string)] = rule["verbs"].([]any)
				}
			}
		}
	}
	for _, kind := range render.Kinds() {
		role, want := "Role ", []any{"get", "list", "watch", "create", "patch", "delete"}
		if !kind.Namespaced {
			role, want = "ClusterRole ", []any{"get", "list", "watch"}
		}
		if diff := cmp.Diff(want, granted[role+kind.Resource.Group+"/"+kind.Resource.Resource]); diff != "" {
			t.Errorf("%s: -want +got\n%s", kind.Resource.Resource, diff)
		}
	}
}
