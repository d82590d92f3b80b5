package render_test

import (
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"

	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// podOf returns the fleet's only pod, whose fields are all fields of a pod.
func podOf(t *testing.T, fleet *schema.Fleet) (*corev1.Pod, render.Object) {
	t.Helper()
	objects := objectsOf(t, fleet)
	object := objects[len(objects)-1]
	pod := new(corev1.Pod)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object.Object, pod, true); err != nil {
		t.Fatal(err)
	}
	return pod, object
}

// TestReservedLabelsStand, though the schema refuses them in a file: they decide who owns a pod and what it may reach.
func TestReservedLabelsStand(t *testing.T) {
	fleet := fleetWith("team-a", "n", "s", "p")
	clean, _ := podOf(t, fleet)
	s := &fleet.Sandboxes[0]
	s.Labels = map[string]string{"mine": "yes"}
	for key := range clean.Labels {
		s.Labels[key] = "evil"
	}
	got, _ := podOf(t, fleet)
	want := maps.Clone(clean.Labels)
	want["mine"] = "yes"
	if diff := cmp.Diff(want, got.Labels); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	s.Egress.Allow = nil
	if got, _ := podOf(t, fleet); got.Labels[render.EgressLabel] != "" {
		t.Error("a label let a pod into an allowlist that is not its own")
	}
}

// TestPodsAreRestricted, of whatever profile their fleet is: what a sandbox can ask for without a patch is allowed.
func TestPodsAreRestricted(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	workspaces := []schema.Workspace{
		{Size: resource.MustParse("1Gi")}, {Size: resource.MustParse("1Gi"), StorageClass: "standard", Retain: true},
		{EmptyDir: resource.MustParse("1Gi")},
	}
	for _, profile := range []schema.PodSecurity{schema.Restricted, schema.Baseline, schema.Privileged} {
		for _, workspace := range workspaces {
			fleet := fleetWith("team-a", "n", "s", "p")
			fleet.PodSecurity = profile
			s := &fleet.Sandboxes[0]
			s.Workspace, s.RuntimeClass = workspace, "gvisor"
			s.Env, s.EnvFrom = map[string]string{"A": "b"}, []schema.EnvFrom{{Secret: "s"}, {ConfigMap: "c"}}
			pod, object := podOf(t, fleet)
			for _, result := range evaluator.EvaluatePod(api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}, &pod.ObjectMeta, &pod.Spec) {
				if !result.Allowed {
					t.Errorf("%s, %v: %s: %s", profile, workspace, result.ForbiddenReason, result.ForbiddenDetail)
				}
			}
			if !object.Security.Allowed() || object.Security.Profile != profile {
				t.Errorf("%s: the verdict is %v", profile, object.Security)
			}
		}
	}
}

func TestQuantitiesAreCanonical(t *testing.T) {
	for written, want := range map[string]string{
		"0.5": "500m", "500m": "500m", "1000m": "1", "2": "2", "2.0": "2", "1.25": "1250m", "0.001": "1m",
		"1024Mi": "1Gi", "1Gi": "1Gi", "1.5Gi": "1536Mi", "0.25Ti": "256Gi", "1000M": "1G", "1048576Ki": "1Gi", "1073741824": "1073741824", "4e9": "4e9",
	} {
		fleet := fleetWith("team-a", "n", "s", "p")
		q := resource.MustParse(written)
		s := &fleet.Sandboxes[0]
		s.Resources.CPU, s.Resources.Memory, s.Resources.Requests.CPU = q, q, q
		s.Workspace = schema.Workspace{EmptyDir: q}
		fleet.Quota = map[string]resource.Quantity{"limits.memory": q}
		fleet.Limits.Max.Memory = q
		found := 0
		for _, object := range objectsOf(t, fleet) {
			found += count(object.Object.Object, want)
		}
		if found != 6 {
			t.Errorf("%s: %d of 6 values are %s", written, found, want)
		}
	}
}

// count returns how many leaves are equal to want.
func count(value any, want string) (n int) {
	switch value := value.(type) {
	case map[string]any:
		for _, child := range value {
			n += count(child, want)
		}
	case []any:
		for _, item := range value {
			n += count(item, want)
		}
	case string:
		if value == want {
			n++
		}
	}
	return n
}

// FuzzPatch: no patch brings the renderer down, or makes anything else than a pod of that name with that container.
func FuzzPatch(f *testing.F) {
	for _, seed := range []string{
		`{"nodeSelector": {"a": "b"}}`, `{"containers": [{"name": "sandbox", "ports": [{"containerPort": 1}]}]}`,
		`{"containers": [{"$patch": "replace"}, {"name": "x"}]}`, `{"$patch": "delete"}`, `{"$retainKeys": ["containers"]}`,
		`{"$setElementOrder/containers": [{"name": "sandbox"}], "containers": [{"name": "sandbox", "image": null}]}`,
		`{"$deleteFromPrimitiveList/x": [1], "volumes": null, "containers": null}`, `{"tolerations": [{}], "hostNetwork": true}`,
		`{"securityContext": null, "initContainers": [{"name": "a"}]}`, `{"containers": [null]}`, `{"containers": [{"name": 1}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, encoded []byte) {
		var patch map[string]any
		if yaml.Unmarshal(encoded, &patch) != nil {
			return
		}
		fleet := fleetWith("team-a", "n", "s", "p")
		clean, _ := podOf(t, fleet)
		fleet.Sandboxes[0].Pod = []map[string]any{patch}
		objects, found := render.Objects(fleet)
		if found.HasErrors() {
			return
		}
		again, _ := render.Objects(fleet)
		if !reflect.DeepEqual(objects, again) {
			t.Error("rendered again, it is another")
		}
		pod, _ := podOf(t, fleet)
		if !reflect.DeepEqual(pod.ObjectMeta, clean.ObjectMeta) {
			t.Error("the metadata are others")
		}
		if !slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == render.ContainerName }) {
			t.Error("the container is gone")
		}
	})
}

// TestWorkspaceClaims: each sandbox mounts its own claim, whether it shares its template's pod or not, unless a patch
// names another.
func TestWorkspaceClaims(t *testing.T) {
	fleet := load(t, []byte(`apiVersion: agentpane.io/v1alpha1
kind: SandboxFleet
name: team-a
templates:
  t: {image: "x:1", workspace: {size: 1Gi}}
  named: {image: "x:1", workspace: {size: 1Gi}, pod: {volumes: [{name: workspace, persistentVolumeClaim: {claimName: mine}}]}}
sandboxes:
  a: {template: t}
  b: {template: t}
  other: {template: t, env: {A: b}}
  named: {template: named}
  scratch: {template: t, workspace: {emptyDir: 1Gi}}
`))
	got := make(map[string]string)
	for _, object := range objectsOf(t, fleet) {
		if object.Object.GetKind() == "Pod" {
			got[object.Path] = render.WorkspaceOf(object.Object)
		}
	}
	want := map[string]string{"sandboxes.named": "mine", "sandboxes.scratch": ""}
	for _, name := range []string{"a", "b", "other"} {
		s, _ := fleet.Sandbox(name)
		want["sandboxes."+name] = render.VolumeName(fleet, &s)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestPositions: each object says which entry of the file it is from.
func TestPositions(t *testing.T) {
	fleet := load(t, []byte(`apiVersion: agentpane.io/v1alpha1
kind: SandboxFleet
name: team-a
namespace: elsewhere
egress: {allow: [{preset: dns}]}
limits: {max: {cpu: 8}}
quota: {pods: 3}
templates:
  t: {image: "x:1", egress: {allow: [{preset: public-ssh}]}}
sandboxes:
  a: {image: "x:1"}
  b: {template: t}
  c: {template: t, egress: {allow: [{preset: public-https}]}}
`))
	lines := make(map[string]int)
	for _, object := range objectsOf(t, fleet) {
		lines[object.Path] = object.Position(fleet).Start.Line
	}
	want := map[string]int{
		"name": 3, "namespace": 4, "egress": 5, "limits": 6, "quota": 7, "templates.t.egress": 9,
		"sandboxes.a": 11, "sandboxes.b": 12, "sandboxes.c": 13, "sandboxes.c.egress": 13,
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
