package watch

import (
	"reflect"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/reconcile"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// A scope is a part of a fleet that is planned and applied as a whole. None
// waits for another, but all wait for the fleet's.
const (
	// fleetScope is what belongs to no single sandbox: the namespace, the rules
	// and the allowlists.
	fleetScope = ""
	// poolsScope is the warm pods that nobody has claimed yet.
	poolsScope = "\x00pools"
	// Every other scope is a sandbox, by its name.
)

// scopeOf is the scope of an object, rendered or live.
func scopeOf(object *unstructured.Unstructured) string {
	labels := object.GetLabels()
	if sandbox := labels[render.SandboxIDLabel]; sandbox != "" {
		return sandbox
	}
	if labels[render.WarmPoolLabel] == "true" || object.GetKind() == "Node" {
		return poolsScope
	}
	return fleetScope
}

// wanted is what the file says.
type wanted struct {
	fleet  *schema.Fleet
	scopes map[string][]render.Object
	// hasGateway: its pods go by the address of the fleet's gateway.
	hasGateway bool
}

func newWanted(fleet *schema.Fleet, objects []render.Object) *wanted {
	w := &wanted{fleet: fleet, scopes: map[string][]render.Object{fleetScope: nil, poolsScope: nil}}
	for _, object := range objects {
		w.hasGateway = w.hasGateway || plan.RefOf(object.Object) == reconcile.GatewayRef(fleet)
		scope := scopeOf(object.Object)
		w.scopes[scope] = append(w.scopes[scope], object)
	}
	return w
}

// names are the scopes with something in them, the fleet's first.
func (w *wanted) names() []string {
	var names []string
	for name := range w.scopes {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// count is how many objects are wanted.
func (w *wanted) count() int {
	n := 0
	for _, objects := range w.scopes {
		n += len(objects)
	}
	return n
}

// differs names the scopes in which two files differ.
func (w *wanted) differs(other *wanted) map[string]bool {
	changed := map[string]bool{poolsScope: true} // what it depends on is no object
	resumed := w.fleet.Suspend != other.fleet.Suspend
	for name := range other.scopes {
		if _, ok := w.scopes[name]; !ok {
			changed[name] = true
		}
	}
	for name, objects := range w.scopes {
		same := slices.EqualFunc(objects, other.scopes[name], func(a, b render.Object) bool {
			return reflect.DeepEqual(a.Object.Object, b.Object.Object)
		})
		before, _ := other.fleet.Sandbox(name)
		after, _ := w.fleet.Sandbox(name)
		if resumed || !same || before.Idle != after.Idle || !reflect.DeepEqual(before.Sessions, after.Sessions) {
			changed[name] = true
		}
	}
	return changed
}

// of is the fleet with no other sandbox than the scope's: what is told of each
// need not be told of all.
func (w *wanted) of(scope string) *schema.Fleet {
	fleet := *w.fleet
	fleet.Sandboxes = nil
	if s, ok := w.fleet.Sandbox(scope); ok {
		fleet.Sandboxes = []schema.Sandbox{s}
	}
	return &fleet
}
