package render_test

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/agentpane/sandboxctl/render"
)

// TestGate: each sandbox and each warm pod begins with the gate, unless the file accepts that policies do not hold, or
// leaves them to Cilium; and a gateway is there wherever it is asked.
func TestGate(t *testing.T) {
	type parts struct{ gateway, sandbox, warm bool }
	begins := func(pod *unstructured.Unstructured) bool {
		containers, _, _ := unstructured.NestedSlice(pod.Object, "spec", "initContainers")
		return len(containers) > 0 && containers[0].(map[string]any)["name"] == render.GateName
	}
	for egress, want := range map[string]parts{
		`{}`:                           {true, true, true},
		`{allow: []}`:                  {true, true, true},
		`{allow: [{host: a.example}]}`: {true, true, true},
		`{unenforced: allow}`:          {},
		`{mode: cilium, allow: []}`:    {},
		`{mode: cilium, allow: [{host: a.example}]}`:      {},
		`{unenforced: allow, allow: [{host: a.example}]}`: {gateway: true},
	} {
		fleet := load(t, fmt.Appendf(nil, `
apiVersion: agentpane.io/v1alpha1
kind: SandboxFleet
name: team-a
egress: %s
templates: {x: {image: "x:1"}}
pools: {p: {template: x}}
sandboxes: {a: {template: x}}
`, egress))
		var got parts
		for _, object := range objectsOf(t, fleet) {
			got.gateway = got.gateway || object.Object.GetKind() == "Deployment"
			got.sandbox = got.sandbox || begins(object.Object)
		}
		pools, err := render.Pools(fleet)
		if err != nil {
			t.Fatal(err)
		}
		got.warm = begins(pools[0].Pod)
		if got != want {
			t.Errorf("%s: %+v, want %+v", egress, got, want)
		}
	}
}

// TestPatchedDNS: a patch may say what a pod's DNS is where no gateway is, and else only what is beside that.
func TestPatchedDNS(t *testing.T) {
	for patch, gateway := range map[string]bool{
		"{dnsConfig: {searches: [a.example], options: [{name: ndots, value: '1'}]}}": true,
		"{dnsConfig: {nameservers: [1.1.1.1]}}":                                      false,
		"{dnsPolicy: Default, dnsConfig: null}":                                      false,
	} {
		for egress, want := range map[string]bool{"{}": gateway, "{unenforced: allow, allow: [{host: a.example}]}": gateway, "{unenforced: allow}": true, "{mode: cilium}": true} {
			_, found := render.Objects(load(t, fmt.Appendf(nil, `
apiVersion: agentpane.io/v1alpha1
kind: SandboxFleet
name: team-a
egress: %s
sandboxes: {a: {image: "x:1", pod: %s}}
`, egress, patch)))
			if found.HasErrors() == want {
				t.Errorf("%s, egress %s: %v", patch, egress, found)
			}
		}
	}
}

// TestGatewayMemory: the program's own bound is a little less than the container's, whatever that is.
func TestGatewayMemory(t *testing.T) {
	for limits, most := range map[string]int64{
		`{}`: 512 << 20,
		`{defaultRequest: {memory: 256Mi}, default: {memory: 256Mi}, max: {memory: 256Mi}}`: 256 << 20,
	} {
		fleet := load(t, fmt.Appendf(nil, `
apiVersion: agentpane.io/v1alpha1
kind: SandboxFleet
name: team-a
limits: %s
templates: {x: {image: "x:1", resources: {memory: 256Mi, requests: {memory: 256Mi}}}}
pools: {p: {template: x}}
`, limits))
		var deployment appsv1.Deployment
		for _, object := range objectsOf(t, fleet) {
			if object.Object.GetKind() != "Deployment" {
				continue
			}
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object.Object, &deployment); err != nil {
				t.Fatal(err)
			}
		}
		var limit, bound int64
		for _, container := range deployment.Spec.Template.Spec.Containers {
			limit = container.Resources.Limits.Memory().Value()
			for _, variable := range container.Env {
				if variable.Name == "GOMEMLIMIT" {
					bound, _ = strconv.ParseInt(variable.Value, 10, 64) // what is no number is 0
				}
			}
		}
		if limit != most || bound >= limit || bound < limit*4/5 {
			t.Errorf("%s: its limit is %d, and its own bound %d; want %d and a little less", limits, limit, bound, most)
		}
	}
}

// TestFillGateway: a pod that gets the gateway's address is another one; the first stays as it was, whatever becomes of it.
func TestFillGateway(t *testing.T) {
	objects := objectsOf(t, load(t, []byte("{apiVersion: agentpane.io/v1alpha1, kind: SandboxFleet, name: team-a, sandboxes: {a: {image: 'x:1'}}}")))
	for _, object := range objects {
		pod := object.Object
		before := pod.DeepCopy()
		filled := render.FillGateway(pod, "10.96.0.53")
		if pod.GetKind() != "Pod" {
			if filled != pod {
				t.Errorf("%s was copied", identity(object))
			}
			continue
		}
		want := pod.DeepCopy()
		if err := unstructured.SetNestedStringSlice(want.Object, []string{"10.96.0.53"}, "spec", "dnsConfig", "nameservers"); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, filled); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		filled.SetName("other")
		filled.SetLabels(nil)
		filled.SetUID("1")
		if diff := cmp.Diff(before, pod); diff != "" {
			t.Errorf("the first has changed: -before +after\n%s", diff)
		}
	}
}
