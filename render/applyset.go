package render

import (
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	k8sschema "k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/agentpane/sandboxctl/schema"
)

// An ApplySet (KEP-3659) is the objects that carry its id as a label, and a parent object that says of which kinds they
// are: who removes what is no longer wanted needs no other inventory, and kubectl knows whose the objects are.
const (
	PartOfLabel     = "applyset.kubernetes.io/part-of"
	ApplySetLabel   = "applyset.kubernetes.io/id"
	ToolingKey      = "applyset.kubernetes.io/tooling"
	GroupKindsKey   = "applyset.kubernetes.io/contains-group-kinds"
	applySetTooling = "sandboxctl/v1.0.0" // changes with the way sets are kept, not with each release
)

// ParentName returns the name of the ConfigMap that is the parent of the fleet's ApplySet.
func ParentName(fleet *schema.Fleet) string { return "agentpane-fleet-" + fleet.Name }

// WatchLease returns the name of the Lease whose holder watches the fleet, of several that could.
func WatchLease(fleet *schema.Fleet) string { return "agentpane-watch-" + fleet.Name }

// PoolStateName returns the name of the ConfigMap that keeps what is known of a fleet's pools and no pod shows. It is a
// member of the ApplySet that is made when there is something to keep.
func PoolStateName(fleet string) string { return "agentpane-pools-" + fleet }

// PoolState returns that ConfigMap, with nothing in it.
func PoolState(fleet *schema.Fleet) *unstructured.Unstructured {
	r := newRenderer(fleet)
	state := newObject("ConfigMap", PoolStateName(fleet.Name), nil)
	r.complete(state)
	return state
}

// ApplySetID returns the id of the fleet's ApplySet, which follows from its parent's name, namespace, kind and group.
func ApplySetID(fleet *schema.Fleet) string {
	parent := strings.Join([]string{ParentName(fleet), fleet.Namespace, "ConfigMap", ""}, ".")
	sum := sha256.Sum256([]byte(parent))
	return "applyset-" + base64.RawURLEncoding.EncodeToString(sum[:]) + "-v1"
}

// Parent returns the parent of the fleet's ApplySet, which says that the set may contain objects of those kinds. It is
// no member of the set.
func Parent(fleet *schema.Fleet, contains []k8sschema.GroupKind) *unstructured.Unstructured {
	var kinds []string
	for _, kind := range contains {
		kinds = append(kinds, kind.String())
	}
	slices.Sort(kinds)
	parent := newObject("ConfigMap", ParentName(fleet), map[string]string{
		ManagedLabel: "true", FleetLabel: labelValue(fleet.Name), ApplySetLabel: ApplySetID(fleet),
	})
	parent.SetNamespace(fleet.Namespace)
	parent.SetAnnotations(map[string]string{
		ToolingKey: applySetTooling, GroupKindsKey: strings.Join(slices.Compact(kinds), ","),
	})
	return parent
}
