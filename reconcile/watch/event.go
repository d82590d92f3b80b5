package watch

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/reconcile/session"
)

// Type is what an event is about.
type Type string

// The types of events.
const (
	// Changed: an object was made, changed or told to go.
	Changed Type = "changed"
	// Ready and NotReady: a pod's state became another. NotReady has the reason.
	Ready    Type = "ready"
	NotReady Type = "not-ready"
	// Drift: somebody else has changed what the file says; in detect mode also
	// what the file says and the cluster never had.
	Drift Type = "drift"
	// SessionChanged: something of a sandbox's tmux sessions was changed.
	// SessionDrift: it differs, in detect mode.
	SessionChanged Type = "session-changed"
	SessionDrift   Type = "session-drift"
	// PoolChanged: a pool is brought to another level. PoolDrift: it is not at
	// its level, in detect mode.
	PoolChanged Type = "pool-changed"
	PoolDrift   Type = "pool-drift"
	// Claimed: a sandbox got a pod of the pool, after Took. The message is warm, or
	// cold where the pod had to be started.
	Claimed Type = "claimed"
	// Flapping: an object was corrected too often, and is left alone for Took.
	// The message names who else changes it.
	Flapping Type = "flapping"
	// Waiting: somebody else has the fleet's lock.
	Waiting Type = "waiting"
	// Failed: a scope could not be brought to what the file says. It is tried
	// again.
	Failed Type = "failed"
	// Unreachable: the cluster, or a kind of object in it, cannot be watched. It
	// is tried again; when that succeeds, Settled follows.
	Unreachable Type = "unreachable"
	// Settled: the cluster is as the file says, Count objects in all, but for
	// what is Left alone.
	Settled Type = "settled"
	// Reconciled: a scope was looked at, for Took. It is for metrics.
	Reconciled Type = "reconciled"
	// PoolSeen: the pool has Pods now. It is for metrics.
	PoolSeen Type = "pool-seen"
)

// Event is something that happened.
type Event struct {
	Type  Type
	Time  time.Time
	Fleet string
	// Scope is the sandbox; empty where the fleet as a whole is concerned.
	Scope string
	Ref   plan.Ref
	// UID is the object's; empty where it is not known.
	UID     types.UID
	Action  plan.Action
	Session session.Change
	// Pool is the pool that is concerned, or that a pod is of.
	Pool    string
	Pods    PoolPods
	Message string
	Err     error
	// Took is how long it took: of Ready since the pod was made.
	Took  time.Duration
	Count int
	// Left is how many sandboxes, or parts of the fleet, differ and are left alone:
	// in detect mode, suspended, or flapping.
	Left int
}

// PoolPods counts the pods of a pool that are there to stay: those that nobody
// has yet, ready or starting, and those that are claimed.
type PoolPods struct {
	Ready, Starting, Claimed int
}
