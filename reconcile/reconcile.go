// Package reconcile brings a cluster to the state that a fleet file says: it
// observes, asks the server what it would do, and applies, prunes and waits.
// What would change is decided in package plan, which is pure; this package
// only ever does what a plan says. It never prints: whoever wants to show
// progress is told by events.
package reconcile

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/agentpane/sandboxctl/reconcile/audit"
	"github.com/agentpane/sandboxctl/reconcile/claim"
	"github.com/agentpane/sandboxctl/reconcile/connection"
	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// concurrency is how many requests are under way at once. Measured: beyond 16
// an API server is saturated, and a slow one is only slowed further.
const concurrency = 16

// Reconciler works on one cluster.
type Reconciler struct {
	// config is for what needs connections of its own: exec.
	config *rest.Config
	client dynamic.Interface
	// raw is for what is no object, as a log.
	raw *rest.RESTClient
	now func() time.Time
	// holder names this process to others that want the same fleet.
	holder string
	own    *ownLock
	// lockTimeout is how long to wait for the lock, and locked is told of whom.
	lockTimeout time.Duration
	locked      func(error)
	// writes is told of what was written; nil where nobody is.
	writes Writes
	// patient: a deletion is over when its object has gone.
	patient bool
	// random makes names.
	random func(n int) string
	// audit records what is changed; nil where nothing is recorded. fleet is
	// whose change is under way.
	audit *audit.Recorder
	fleet *schema.Fleet
	// rules are what it changes of what others are judged by.
	rules plan.Rules
	// enforce: no pod is made where its policy would not hold.
	enforce bool
	// probing is held by the one who probes that.
	probing chan struct{}
}

// Writes is told of what a reconciler has written, before the answer is acted
// on: whoever works from a cache sees its own writes in it that way, however
// late the cache is. Its methods may be called from several goroutines at once.
type Writes interface {
	// Wrote is told of an object as the server has stored it.
	Wrote(*unstructured.Unstructured)
	// Deleting is told that the object was told to go.
	Deleting(plan.Ref, types.UID)
}

// Watched returns a reconciler whose writes are told, and which waits for no
// deletion: its user sees the object go, and then plans what follows.
func (r *Reconciler) Watched(writes Writes) *Reconciler {
	watched := *r
	watched.writes, watched.patient = writes, false
	return &watched
}

// Option is something that a reconciler does beside its work.
type Option func(*Reconciler)

// WithAudit has what is changed recorded. What cannot be recorded is not done.
func WithAudit(recorder *audit.Recorder) Option {
	return func(r *Reconciler) { r.audit = recorder }
}

// WithLockTimeout has whoever finds the fleet locked wait for that long. told is
// told of the refusal at first.
func WithLockTimeout(timeout time.Duration, told func(error)) Option {
	return func(r *Reconciler) { r.lockTimeout, r.locked = timeout, told }
}

// New returns a reconciler for the cluster of that configuration. The holder is
// what people are told when they find the fleet locked, as "alice@laptop
// (process 4711)".
func New(config *rest.Config, now func() time.Time, holder string, options ...Option) (*Reconciler, error) {
	plain := config
	config = rest.CopyConfig(config)
	config.Wrap(noteStatus)
	client, raw, err := connection.NewClients(config)
	if err != nil {
		return nil, fmt.Errorf("setting up the client: %w", err)
	}
	r := &Reconciler{config: plain, client: client, raw: raw, now: now, holder: holder, own: &ownLock{}, patient: true, random: claim.RandomText, probing: make(chan struct{}, 1)}
	for _, option := range options {
		option(r)
	}
	return r, nil
}

// resource is where objects like ref are.
func (r *Reconciler) resource(ref plan.Ref) dynamic.ResourceInterface {
	kind := render.KindOf(ref.GroupVersionKind)
	if !kind.Namespaced {
		return r.client.Resource(kind.Resource)
	}
	return r.client.Resource(kind.Resource).Namespace(ref.Namespace)
}

// get reads the object; it is nil where there is none.
func (r *Reconciler) get(ctx context.Context, ref plan.Ref) (*unstructured.Unstructured, error) {
	object, err := r.resource(ref).Get(ctx, ref.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return object, failure.From(err, about(ref))
}
