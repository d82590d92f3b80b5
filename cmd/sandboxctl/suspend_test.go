package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/reconcile"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/reconcile/watch"
	"github.com/agentpane/sandboxctl/render"
)

// annotated is an object that asks to be left alone, of that sandbox if it has one.
func annotated(kind, sandbox string) *unstructured.Unstructured {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind))
	object.SetName("x")
	object.SetAnnotations(map[string]string{watch.SuspendAnnotation: "true"})
	if sandbox != "" {
		object.SetLabels(map[string]string{render.SandboxIDLabel: sandbox})
	}
	return object
}

func TestSuspension(t *testing.T) {
	fleet := loadFleet(t, "  a: {template: t}\n")
	suspended := *fleet
	suspended.Suspend = true
	live := func(object *unstructured.Unstructured) reconcile.Observation {
		return reconcile.Observation{Live: map[plan.Ref]*unstructured.Unstructured{plan.RefOf(object): object}}
	}
	const annotation = " has the annotation agentpane.io/suspend"
	for name, test := range map[string]struct {
		got  suspension
		want string
	}{
		"nothing":             {suspensionOf(fleet, reconcile.Observation{}), ""},
		"the file":            {suspensionOf(&suspended, reconcile.Observation{}), "Fleet f is suspended, as its file says suspend: true: nothing of it was changed.\n"},
		"the namespace":       {suspensionOf(fleet, reconcile.Observation{Namespace: annotated("Namespace", "")}), "Fleet f is suspended, as its namespace" + annotation + ": nothing of it was changed.\n"},
		"what all share":      {suspensionOf(fleet, live(annotated("ConfigMap", ""))), "Fleet f is suspended, as configmap x" + annotation + ": nothing of it was changed.\n"},
		"a sandbox's own pod": {suspensionOf(fleet, live(annotated("Pod", "a"))), "Sandbox a is suspended by the annotation agentpane.io/suspend: it is left as it is.\n"},
	} {
		var out strings.Builder
		test.got.print(&out, "f")
		if diff := cmp.Diff(test.want, out.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestSuspendedSandboxIsSpared, and what it may live under.
func TestSuspendedSandboxIsSpared(t *testing.T) {
	change := func(name, sandbox string, action plan.Action) plan.Change {
		c := plan.Change{Ref: plan.Ref{Name: name}, Action: action}
		if sandbox != "" {
			c.Labels = map[string]string{render.SandboxIDLabel: sandbox}
		}
		return c
	}
	unlabelled := change("a-replaced", "", plan.Replace)
	unlabelled.Desired = annotated("Pod", "a")
	p := plan.Plan{
		Changes: []plan.Change{
			change("a", "a", plan.Update), unlabelled, change("b", "b", plan.Delete), change("new-rule", "", plan.Create), change("old-rule", "", plan.Delete),
		},
		Sessions: []plan.Sessions{{Sandbox: "a"}, {Sandbox: "b"}},
		Active:   []plan.Activity{{Sandbox: "a"}, {Sandbox: "b"}},
	}
	names := func(p plan.Plan) (names []string) {
		for _, c := range p.Changes {
			names = append(names, c.Ref.Name)
		}
		for _, s := range p.Sessions {
			names = append(names, "sessions of "+s.Sandbox)
		}
		for _, a := range p.Active {
			names = append(names, "use of "+a.Sandbox)
		}
		return names
	}
	all := names(p)
	if diff := cmp.Diff([]string{"b", "new-rule", "sessions of b", "use of b"}, names(suspension{sandboxes: map[string]bool{"a": true}}.spare(p))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(all, names(suspension{}.spare(p))); diff != "" {
		t.Errorf("where nothing is suspended (-want +got):\n%s", diff)
	}
}
