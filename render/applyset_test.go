package render_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/agentpane/sandboxctl/render"
)

// TestParent holds the parent to what kubectl 1.37 writes and wants to see.
func TestParent(t *testing.T) {
	fleet := fleetWith("team-a", "as-test", "s", "p")
	// From `kubectl apply --prune --applyset=configmap/agentpane-fleet-team-a -n as-test`.
	const id = "applyset-G5q2hi086bYIBOnzkSKPmwEchAk8ykRtZqmMxySEpLQ-v1"
	want := map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{
			"name": "agentpane-fleet-team-a", "namespace": "as-test",
			"labels": map[string]any{
				"agentpane.io/managed": "true", "agentpane.io/fleet": "team-a", "applyset.kubernetes.io/id": id,
			},
			"annotations": map[string]any{
				"applyset.kubernetes.io/tooling":              "sandboxctl/v1.0.0",
				"applyset.kubernetes.io/contains-group-kinds": "NetworkPolicy.networking.k8s.io,Pod",
			},
		},
	}
	got := render.Parent(fleet, []schema.GroupKind{
		{Kind: "Pod"}, {Group: "networking.k8s.io", Kind: "NetworkPolicy"}, {Kind: "Pod"},
	})
	if diff := cmp.Diff(want, got.Object); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for _, object := range objectsOf(t, fleet) {
		if object.Object.GetLabels()[render.PartOfLabel] != id {
			t.Errorf("%s is no part of the set", identity(object))
		}
	}
}
