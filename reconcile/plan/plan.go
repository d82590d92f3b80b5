// Package plan says what applying a fleet would change. [Make] is a pure
// function: of what is wanted, what was observed, and what the server answered
// to the questions that [Questions] asks. Whatever prints, applies, counts or
// sets an exit code reads the one [Plan] that it returns, so none of them can
// disagree. The package never talks to a cluster and never prints.
package plan

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/agentpane/sandboxctl/render"
)

// Ref names an object in a cluster.
type Ref struct {
	schema.GroupVersionKind
	Namespace, Name string
}

// RefOf is the object's name.
func RefOf(object *unstructured.Unstructured) Ref {
	return Ref{object.GroupVersionKind(), object.GetNamespace(), object.GetName()}
}

// String is how people are told of the object, as "pod agentpane-api-1f3c".
func (r Ref) String() string { return strings.ToLower(r.Kind) + " " + r.Name }

// Of is String with the sandbox whose the object is, which the name of a pod does
// not say; empty for what is no sandbox's.
func (r Ref) Of(sandbox string) string {
	if sandbox == "" {
		return r.String()
	}
	return r.String() + " (sandbox " + sandbox + ")"
}

// Action is what happens to an object.
type Action string

// The actions. Adopt takes over an object that is there but is nobody's.
const (
	Create  Action = "create"
	Adopt   Action = "adopt"
	Update  Action = "update"
	Replace Action = "replace"
	Delete  Action = "delete"
)

// Disruption is what a change means to whoever works in the sandbox.
type Disruption string

// The disruptions, the mildest first. What replaces or ends a pod ends every
// process and tmux session in it.
const (
	None     Disruption = "none"
	Restarts Disruption = "restart" // the container starts anew in the same pod
	Replaces Disruption = "replace" // a new pod takes its place
	Ends     Disruption = "end"     // the pod goes
)

// Change is one object that would change.
type Change struct {
	Ref    Ref
	Action Action
	// Path is the entry of the file that the object stems from, as
	// "sandboxes.api"; empty for one that is no longer in the file.
	Path       string
	Disruption Disruption
	// PodSecurity is the profile that the new pod passes; empty for what is no
	// pod, or goes.
	PodSecurity string
	// Reason says why an object is replaced or deleted.
	Reason string
	// Fields are the values that change. Sensitive ones are masked.
	Fields []Field
	// Conflicts are the fields that other managers own. They block the change
	// unless Force is set.
	Conflicts []Conflict
	// Force: the conflicting fields are taken over.
	Force bool
	// Resize: CPU or memory change in place, by the pod's resize subresource.
	Resize bool
	// Unvalidated says why the server could not be asked; empty when it was.
	Unvalidated string
	// Problem is why the change cannot be made; nil when it can.
	Problem error
	// Labels are those of the object, as it is to be, or was where it goes.
	Labels map[string]string

	// Desired is what is applied; nil for a deletion.
	Desired *unstructured.Unstructured
	// Adopt is how a sandbox's new pod comes out of a pool; nil where it does
	// not.
	Adopt *Adoption
	// Volume is the workspace's claim that is made with a pool's new pod.
	Volume *unstructured.Unstructured
	// Became is the pod that a sandbox got in place of the one of that name.
	Became string
	// IdleSince is, for a pod that goes as its sandbox is idle, when something
	// last happened in it: it stays if something did after that.
	IdleSince time.Time
	// UID and ResourceVersion are those of the object that was seen, and Seen
	// is its Digest; empty for a creation. They are the change's precondition.
	UID             types.UID
	ResourceVersion string
	Seen            string
}

// Sandbox is the name of the sandbox whose the object is; empty for what is no
// sandbox's.
func (c Change) Sandbox() string { return c.Labels[render.SandboxIDLabel] }

// String is how people are told of the change's object.
func (c Change) String() string { return c.Ref.Of(c.Sandbox()) }

// Blocked tells whether the change cannot be made as planned.
func (c Change) Blocked() bool {
	return c.Problem != nil || (len(c.Conflicts) > 0 && !c.Force)
}

// Kept is what stays though it is not in the file: an object that was in it, or
// another fleet beside a new one.
type Kept struct {
	Ref    Ref
	Reason string
}

// Plan is everything that applying would do, in the order in which it would
// be done.
type Plan struct {
	Fleet, Namespace string
	Changes          []Change
	Kept             []Kept
	// Pools are the warm pools whose levels change, after everything else.
	Pools []PoolLevel
	// Sessions are those of the sandboxes that are not known to be as they
	// should be. They come last, when the pods are ready.
	Sessions []Sessions
	// Active are sandboxes that would have been stopped as idle, and are in use.
	Active []Activity
	// Unchanged counts the objects that are as they should be.
	Unchanged int
	// Standing are the pods of sandboxes that do not change.
	Standing []Ref
}

// Empty tells whether nothing would change.
func (p Plan) Empty() bool {
	return len(p.Changes)+len(p.Pools) == 0 && !slices.ContainsFunc(p.Sessions, func(s Sessions) bool { return !s.Idle() })
}

// Count is the number of changes with that action.
func (p Plan) Count(action Action) int {
	n := 0
	for _, change := range p.Changes {
		if change.Action == action {
			n++
		}
	}
	return n
}

// PodName is the name of the pod that the change is about, once it is made.
func (c Change) PodName() string { return cmp.Or(c.Became, c.Ref.Name) }

// Blocked are the changes that cannot be made as planned.
func (p Plan) Blocked() []Change {
	blocked := blockedOf(p.Changes)
	for _, level := range p.Pools {
		blocked = append(blocked, blockedOf(level.Changes)...)
	}
	return blocked
}

func blockedOf(changes []Change) []Change {
	var blocked []Change
	for _, change := range changes {
		if change.Blocked() {
			blocked = append(blocked, change)
		}
	}
	return blocked
}

// Conflict is a field that another manager owns.
type Conflict struct {
	Manager string `json:"manager"`
	Field   string `json:"field"`
}

// sortChanges puts changes in the order of apply: waves upward, then deletions
// with the waves downward, so that what depends on another goes first.
func sortChanges(changes []Change) {
	order := func(c Change) int {
		wave := int(render.WaveOf(c.Ref.GroupVersionKind))
		if c.Action == Delete {
			const afterAllWaves = 1000
			return afterAllWaves - wave
		}
		return wave
	}
	slices.SortStableFunc(changes, func(a, b Change) int {
		return cmp.Or(
			cmp.Compare(order(a), order(b)),
			cmp.Compare(a.Ref.Kind, b.Ref.Kind),
			cmp.Compare(a.Ref.Name, b.Ref.Name),
		)
	})
}
