package render

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/agentpane/sandboxctl/schema"
)

// Manager is the field manager of everything that sandboxctl applies, so that a plan finds what it would apply itself.
const Manager = "sandboxctl"

// The labels of what belongs to a fleet. Those that the original has keep its names.
const (
	ManagedLabel    = "agentpane.io/managed"     // "true" on all
	FleetLabel      = "agentpane.io/fleet"       // the fleet's name, on all
	SandboxLabel    = "agentpane.io/sandbox"     // "true" on a sandbox's pod and volume
	SandboxIDLabel  = "agentpane.io/sandbox-id"  // the sandbox's name
	ProjectIDLabel  = "agentpane.io/project-id"  // its project
	EgressLabel     = "agentpane.io/egress"      // the id of the allowlist that a pod is under; without it, none
	PolicyTypeLabel = "agentpane.io/policy-type" // "default" denies all, "sandbox" is an allowlist
	ComponentLabel  = "agentpane.io/component"   // what of the fleet's own a pod is, as "egress-gateway"
	RetainLabel     = "agentpane.io/retain"      // "true" on a volume that outlives its sandbox
)

// EnforcementAnnotation is where it is noted whether the cluster enforces NetworkPolicy: on the policy that denies all, so
// that whoever lists the fleet's policies sees it.
const EnforcementAnnotation = "agentpane.io/egress-enforcement"

// LockAnnotation on the fleet's parent object says who changes the fleet.
const LockAnnotation = "agentpane.io/lock"

// ContainerName is the container that a sandbox's commands run in.
const ContainerName = "sandbox"

// ownership returns the labels that every object of the fleet has.
func (r *renderer) ownership() map[string]string {
	return map[string]string{
		ManagedLabel: "true", FleetLabel: labelValue(r.fleet.Name), PartOfLabel: r.setID,
	}
}

// identity returns the labels of what belongs to one sandbox.
func identity(s *schema.Sandbox) map[string]string {
	return map[string]string{
		SandboxLabel: "true", SandboxIDLabel: labelValue(s.Name), ProjectIDLabel: labelValue(s.Project),
	}
}

// PodName returns the name of a sandbox's pod: the original's agentpane-<project>-<id>, with an id that follows from
// the sandbox, so that nothing is ever started twice.
func PodName(fleet *schema.Fleet, s *schema.Sandbox) string {
	const projectLength = 20 // the original's
	return "agentpane-" + slug(s.Project, projectLength) + "-" + digest(fleet.Name, s.Name)
}

// VolumeName returns the name of a sandbox's claim. It does not follow the project: a sandbox that moves to another one
// keeps its data.
func VolumeName(fleet *schema.Fleet, s *schema.Sandbox) string {
	const nameLength = 40 // the schema allows 39
	return "workspace-" + slug(s.Name, nameLength) + "-" + digest(fleet.Name, s.Name)
}

// ReservationName returns the name of the Lease that says which pod may become a sandbox's, whose name is given as its
// label has it.
func ReservationName(fleet *schema.Fleet, sandbox string) string {
	return "agentpane-claim-" + slug(sandbox, 40) + "-" + digest(fleet.Name, sandbox)
}

// Reservation returns that Lease, which names no pod yet. It is no member of the ApplySet: it goes with its pod.
func Reservation(fleet *schema.Fleet, sandbox string) *unstructured.Unstructured {
	lease := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}}
	lease.SetName(ReservationName(fleet, sandbox))
	lease.SetNamespace(fleet.Namespace)
	lease.SetLabels(map[string]string{ManagedLabel: "true", FleetLabel: labelValue(fleet.Name), SandboxIDLabel: sandbox})
	return lease
}

// SuccessorName returns a name that an object's replacement could have: with it the server can be asked, by a dry run,
// whether it would take the replacement while the object is still there.
func SuccessorName(name string) string { return name + "-next" }

// own returns the name of the fleet's own copy of an object that every fleet has. Two fleets in a namespace are told
// apart by their names; outside of namespaces that is not enough. No fleet or namespace has a dot in its name.
func (r *renderer) own(name string, namespaced bool) string {
	if namespaced {
		return name + "-" + r.fleet.Name
	}
	return name + "-" + r.fleet.Namespace + "." + r.fleet.Name
}

// newObject returns an object of one of the Kinds, by its name there.
func newObject(kindName, name string, labels map[string]string) *unstructured.Unstructured {
	object := &unstructured.Unstructured{Object: make(map[string]any)}
	object.SetGroupVersionKind(kindNamed(kindName).Kind)
	object.SetName(name)
	object.SetLabels(labels)
	return object
}

// digest returns 48 bits of a hash of the parts, none of which has a line break, in hexadecimal: among 10,000, two are
// the same with a probability of 2 in 10 million. Eight digits, as many as the original's ids have, would make it 1 in 100.
func digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
	return hex.EncodeToString(sum[:6])
}

// slug returns what of text can be part of a DNS label: in lower case, other characters replaced, not longer than
// longest, and not empty.
func slug(text string, longest int) string {
	label := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(text))
	label = strings.Trim(label[:min(len(label), longest)], "-")
	return cmp.Or(label, "x")
}

// labelValue returns text where it can be the value of a label, else what of it can be and a hash of all of it.
func labelValue(text string) string {
	if text != "" && len(validation.IsValidLabelValue(text)) == 0 {
		return text
	}
	return slug(text, 40) + "-" + digest(text)
}

// DenyAll returns the name of the policy that denies all to the fleet's sandboxes.
func DenyAll(fleet *schema.Fleet) string { return "sandbox-default-deny-" + fleet.Name }
