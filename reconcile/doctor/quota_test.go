package doctor

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// TestDemand: what counts against quotas is what is to come, and nothing that is
// there under another name, or is not to run.
func TestDemand(t *testing.T) {
	fleets, found := schema.Load([]string{"-"}, strings.NewReader(`
apiVersion: agentpane.io/v1alpha1
kind: SandboxFleet
name: f
templates: {t: {image: "i:1", resources: {cpu: "2", memory: 1Gi}, workspace: {size: 10Gi}, egress: {allow: [{host: a.example}]}}}
pools: {p: {template: t, min: 1, autoscale: false}}
sandboxes: {adopted: {pool: p}, idle: {template: t, idle: {after: 1h}}, new: {template: t}}
`))
	if found.HasErrors() {
		t.Fatal(found)
	}
	fleet := fleets[0]
	objects, found := render.Objects(fleet)
	if found.HasErrors() {
		t.Fatal(found)
	}
	pools, err := render.Pools(fleet)
	if err != nil {
		t.Fatal(err)
	}
	patient := Patient{Fleet: fleet, Objects: objects}
	live := map[plan.Ref]*unstructured.Unstructured{}
	wants := func(when string, pods, volumes int, cpu, storage string) {
		t.Helper()
		coming, err := patient.demand(live)
		if err != nil {
			t.Fatal(err)
		}
		limits, size := coming.amounts["limits.cpu"], coming.amounts["requests.storage"]
		got := []any{coming.pods, coming.volumes, limits.String(), size.String()}
		if diff := cmp.Diff([]any{pods, volumes, cpu, storage}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	var gateway string
	for _, object := range objects {
		if object.Object.GetKind() == "Deployment" {
			gateway = object.Object.GetName()
		}
	}
	if gateway == "" {
		t.Fatal("there is no gateway")
	}
	// Three sandboxes and a warm pod, and the gateway's two pods.
	wants("of a new fleet", 6, 4, "12", "40Gi")

	add := func(object *unstructured.Unstructured) { live[plan.RefOf(object)] = object }
	warm, volume := pools[0].WarmPod(0, "x")
	claimed := pools[0].Claimed(render.Claim{Sandbox: "adopted", Project: "adopted"})
	add(render.OnPod(claimed, warm.GetName(), volume.GetName()))
	volume.SetLabels(claimed.GetLabels())
	add(volume)
	for _, object := range objects {
		if object.Object.GetKind() == "Deployment" {
			add(object.Object)
		}
	}
	wants("with one that has adopted a warm pod, and the gateway", 3, 3, "6", "30Gi")

	idle, _ := fleet.Sandbox("idle")
	add(render.IdleRecord{Pod: "u", Entry: render.EntryHash(&idle)}.Object(fleet, &idle).Object)
	wants("with one that was stopped, being idle", 2, 3, "4", "30Gi")
}
