package render_test

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

const longest = 39 // of a fleet's and a sandbox's name, by the schema

// FuzzNames: whatever a file may name its things, what they are called in the cluster is valid.
func FuzzNames(f *testing.F) {
	f.Add("team-a", "api-refactor", "api", "agentpane-sandboxes")
	f.Add(strings.Repeat("f", longest), strings.Repeat("s", longest), strings.Repeat("P", 63), strings.Repeat("n", 63))
	f.Add("a", "b", "_.-", "c")
	f.Add("a", "b", "Ünïcödé/../\x00", "c")
	f.Add("a", "b", "-----------------------x", "c")
	f.Fuzz(func(t *testing.T, fleetName, name, project, namespace string) {
		for _, label := range []string{fleetName, name, namespace} {
			if len(validation.IsDNS1123Label(label)) > 0 {
				return // the schema lets only these through
			}
		}
		if len(fleetName) > longest || len(name) > longest {
			return
		}
		for _, object := range objectsOf(t, fleetWith(fleetName, namespace, name, project)) {
			problems := validation.IsDNS1123Subdomain(object.Object.GetName())
			switch kind := object.Object.GetKind(); {
			case kind == "Pod" || kind == "Namespace":
				problems = validation.IsDNS1123Label(object.Object.GetName())
			case strings.Contains(kind, "Role"):
				problems = content.IsPathSegmentName(object.Object.GetName())
			}
			for key, value := range object.Object.GetLabels() {
				problems = append(problems, validation.IsQualifiedName(key)...)
				problems = append(problems, validation.IsValidLabelValue(value)...)
			}
			if len(problems) > 0 {
				t.Errorf("%s %s: %v", object.Object.GetKind(), object.Object.GetName(), problems)
			}
		}
	})
}

// fleetWith returns a fleet of one sandbox, of no file.
func fleetWith(fleetName, namespace, name, project string) *schema.Fleet {
	return &schema.Fleet{
		Name: fleetName, Namespace: namespace, PodSecurity: schema.Restricted,
		Quota: map[string]resource.Quantity{"pods": resource.MustParse("1")},
		Sandboxes: []schema.Sandbox{{
			Name: name, Project: project, State: schema.Running,
			Settings: schema.Settings{
				Image:     "x:1",
				Workspace: schema.Workspace{Size: resource.MustParse("1Gi")},
				Egress:    schema.Egress{Allow: []schema.EgressRule{{Preset: schema.DNS}}},
			},
		}},
	}
}

func objectsOf(t *testing.T, fleet *schema.Fleet) []render.Object {
	t.Helper()
	objects, found := render.Objects(fleet)
	if found.HasErrors() {
		t.Fatal(found)
	}
	return objects
}

func identity(object render.Object) string {
	return strings.Join([]string{object.Object.GetKind(), object.Object.GetNamespace(), object.Object.GetName()}, " ")
}

// TestFleetsShareNothing: neither two fleets in a namespace, nor two of a name in two namespaces; but for the namespace.
func TestFleetsShareNothing(t *testing.T) {
	for _, other := range []*schema.Fleet{
		fleetWith("b", "shared", "s", "p"), fleetWith("a", "other", "s", "p"), fleetWith("a-s", "shared", "s", "p"),
		fleetWith("b-a", "shared", "s", "p"), fleetWith("a", "shared-a", "s", "p"), fleetWith("a-a", "shared", "s", "p"),
	} {
		seen := make(map[string]bool)
		for _, object := range objectsOf(t, fleetWith("a", "shared", "s", "p")) {
			if id := identity(object); seen[id] {
				t.Errorf("%s is there twice", id)
			} else {
				seen[id] = true
			}
		}
		for _, object := range objectsOf(t, other) {
			if seen[identity(object)] && object.Object.GetKind() != "Namespace" {
				t.Errorf("fleet %s in %s has %s, too", other.Name, other.Namespace, identity(object))
			}
		}
	}
}

func TestPodName(t *testing.T) {
	named := func(fleetName, name, project string) string {
		fleet := fleetWith(fleetName, "n", name, project)
		return render.PodName(fleet, &fleet.Sandboxes[0])
	}
	for _, c := range []struct{ name, project, want string }{
		{"s", "api", "agentpane-api-"},
		{"s", "API_v2.x", "agentpane-api-v2-x-"},
		{"s", "twenty-characters-ab-and-more", "agentpane-twenty-characters-ab-"},
		{"s", "nineteen-characters-and-more", "agentpane-nineteen-characters-"},
	} {
		got := named("f", c.name, c.project)
		if id, ok := strings.CutPrefix(got, c.want); !ok || len(id) != 12 {
			t.Errorf("%s of %s is %s, want %s and 12 characters", c.name, c.project, got, c.want)
		}
	}
	if named("f", "a", "p") == named("f", "b", "p") || named("f", "a", "p") == named("g", "a", "p") {
		t.Error("two sandboxes have one name")
	}
}

func TestVolumeKeepsItsNameInAnotherProject(t *testing.T) {
	a, b := fleetWith("f", "n", "s", "p"), fleetWith("f", "n", "s", "q")
	if render.VolumeName(a, &a.Sandboxes[0]) != render.VolumeName(b, &b.Sandboxes[0]) {
		t.Error("the data are lost")
	}
}
