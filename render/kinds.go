package render

import (
	k8sschema "k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/agentpane/sandboxctl/schema"
)

// Wave is when an object is applied: the waves follow one another, and all of one stands before the next begins.
type Wave int

// The waves. Nothing can be created before its namespace is, a binding is refused by the server until its role is there,
// and a pod starts only when its limits, its policies and its volumes are in place.
const (
	NamespaceWave Wave = iota
	RulesWave
	VolumesWave
	PodsWave
)

// Kind is a kind of object that fleets consist of.
type Kind struct {
	Kind       k8sschema.GroupVersionKind
	Resource   k8sschema.GroupVersionResource
	Namespaced bool
	Wave       Wave
}

// KindsOf returns the kinds that the fleet can consist of: Kinds, and what only some clusters have and its file asks for.
func KindsOf(fleet *schema.Fleet) []Kind {
	if fleet.Egress.Mode == schema.Cilium {
		return append(Kinds(), ciliumPolicy())
	}
	return Kinds()
}

// ciliumPolicy is the kind of Cilium's own policies.
func ciliumPolicy() Kind {
	cilium := k8sschema.GroupVersion{Group: "cilium.io", Version: "v2"}
	return Kind{cilium.WithKind("CiliumNetworkPolicy"), cilium.WithResource("ciliumnetworkpolicies"), true, RulesWave}
}

// Kinds returns every kind that this package renders for any cluster.
func Kinds() []Kind {
	kinds := kinds()
	return kinds[:]
}

// kinds is the one place that lists them. It is an array: those who look up the kind of each of many thousand objects
// need no memory for it.
func kinds() [14]Kind {
	const namespaced, clusterWide = true, false
	core := k8sschema.GroupVersion{Version: "v1"}
	apps := k8sschema.GroupVersion{Group: "apps", Version: "v1"}
	networking := k8sschema.GroupVersion{Group: "networking.k8s.io", Version: "v1"}
	rbac := k8sschema.GroupVersion{Group: "rbac.authorization.k8s.io", Version: "v1"}
	kind := func(group k8sschema.GroupVersion, name, resource string, namespaced bool, wave Wave) Kind {
		return Kind{group.WithKind(name), group.WithResource(resource), namespaced, wave}
	}
	return [...]Kind{
		kind(core, "Namespace", "namespaces", clusterWide, NamespaceWave),
		kind(core, "ConfigMap", "configmaps", namespaced, RulesWave), // the ApplySet's parent, see Parent
		kind(core, "LimitRange", "limitranges", namespaced, RulesWave),
		kind(core, "ResourceQuota", "resourcequotas", namespaced, RulesWave),
		kind(core, "Service", "services", namespaced, RulesWave),
		kind(core, "ServiceAccount", "serviceaccounts", namespaced, RulesWave),
		kind(networking, "NetworkPolicy", "networkpolicies", namespaced, RulesWave),
		kind(rbac, "ClusterRole", "clusterroles", clusterWide, RulesWave),
		kind(rbac, "Role", "roles", namespaced, RulesWave),
		kind(apps, "Deployment", "deployments", namespaced, VolumesWave), // what serves the pods stands before them
		kind(core, "PersistentVolumeClaim", "persistentvolumeclaims", namespaced, VolumesWave),
		kind(rbac, "ClusterRoleBinding", "clusterrolebindings", clusterWide, VolumesWave),
		kind(rbac, "RoleBinding", "rolebindings", namespaced, VolumesWave),
		kind(core, "Pod", "pods", namespaced, PodsWave),
	}
}

// KindOf returns what Kinds says about a kind, or what is said of Cilium's; the zero Kind when nothing is.
func KindOf(kind k8sschema.GroupVersionKind) Kind {
	if known := kindNamed(kind.Kind); known.Kind == kind {
		return known
	}
	return Kind{}
}

func kindNamed(name string) Kind {
	for _, known := range kinds() {
		if known.Kind.Kind == name {
			return known
		}
	}
	if cilium := ciliumPolicy(); cilium.Kind.Kind == name {
		return cilium
	}
	return Kind{}
}

// WaveOf returns the wave of a kind.
func WaveOf(kind k8sschema.GroupVersionKind) Wave { return KindOf(kind).Wave }
