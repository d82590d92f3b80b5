package reconcile

import (
	"errors"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/reconcile/audit"
	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// of is the reconciler while it changes that fleet.
func (r *Reconciler) of(fleet *schema.Fleet) *Reconciler {
	copied := *r
	copied.fleet = fleet
	return &copied
}

// errUntouched: nothing was changed, as the object is not what the plan saw, and
// that does not matter.
var errUntouched = errors.New("it was left as it is")

// audited makes a change and records it. What could not be recorded is not
// begun; what was made and could not be recorded has failed.
func (r *Reconciler) audited(change plan.Change, make func() (plan.Change, error)) (plan.Change, error) {
	if err := r.audit.Ready(); err != nil {
		return change, err
	}
	begun := r.now()
	made, err := make()
	if errors.Is(err, errUntouched) {
		return made, err
	}
	return made, errors.Join(err, r.record(made, r.now().Sub(begun), err))
}

// record records a change that was made, or has failed.
func (r *Reconciler) record(change plan.Change, took time.Duration, err error) error {
	about := aboutChange(change)
	switch {
	case err != nil && (change.Ref.Kind != "Pod" || change.Action == plan.Delete):
		return nil // of failures, the original records those of pods
	case err != nil:
		refused := failure.CodeOf(err) == failure.PodSecurityViolation
		return r.audit.NotMade(about, r.profile(), refused, audit.Outcome{Took: took, Err: err})
	case adopted(change):
		return nil // which package claim has recorded
	}
	outcome := audit.Outcome{Took: took, Metadata: metadataOf(change)}
	events := eventsOf(change, r.stopped(change))
	if change.Ref.Kind == "Pod" && change.Desired != nil {
		return r.audit.Made(events[0].event, events[0].component, about, r.profile(), outcome)
	}
	var errs []error
	for _, e := range events {
		errs = append(errs, r.audit.Record(e.event, e.component, about, outcome))
	}
	return errors.Join(errs...)
}

// adopted tells whether a sandbox's new pod came out of a pool, where it has run
// before.
func adopted(change plan.Change) bool {
	return change.Adopt != nil && change.Became != "" && change.Became != change.Desired.GetName()
}

// PodBecame records what has become of a pod by itself: that it is ready, or why
// it cannot be.
func (r *Reconciler) PodBecame(pod *unstructured.Unstructured, why error) error {
	event := audit.PodStarted
	if why != nil {
		event = audit.PodFailed
	}
	change := plan.Change{Ref: plan.RefOf(pod), Labels: pod.GetLabels()}
	return r.audit.Record(event, audit.Provider, aboutChange(change), audit.Outcome{Err: why})
}

// auditedReady records what becomes of pods that are waited for; recorded
// returns what went wrong with that.
func (r *Reconciler) auditedReady(tell func(Event)) (audited func(Event), recorded func() error) {
	var mutex sync.Mutex // protects failed
	var failed []error
	audited = func(event Event) {
		starts := event.Change.Action != plan.Update || event.Change.Disruption == plan.Restarts
		starts = starts && !adopted(event.Change)
		var err error
		switch {
		case event.Phase == Ready && starts:
			err = r.audit.Record(audit.PodStarted, audit.Provider, aboutChange(event.Change), audit.Outcome{})
		case event.Phase == Failed:
			err = r.audit.Record(audit.PodFailed, audit.Provider, aboutChange(event.Change), audit.Outcome{Err: event.Err})
		}
		mutex.Lock()
		failed = append(failed, err)
		mutex.Unlock()
		tell(event)
	}
	return audited, func() error { return errors.Join(failed...) }
}

// stopped tells whether a pod goes because its sandbox is to be stopped.
func (r *Reconciler) stopped(change plan.Change) bool {
	if r.fleet == nil || change.Ref.Kind != "Pod" || change.Action != plan.Delete {
		return false
	}
	sandbox, ok := r.fleet.Sandbox(change.Labels[render.SandboxIDLabel])
	return !change.IdleSince.IsZero() || ok && sandbox.State == schema.Stopped
}

// profile is the one that pods pass; empty where no fleet is being changed.
func (r *Reconciler) profile() string {
	if r.fleet == nil {
		return ""
	}
	return string(r.fleet.PodSecurity)
}

func aboutChange(change plan.Change) audit.About {
	return audit.About{
		Namespace: change.Ref.Namespace, ResourceName: change.PodName(),
		SandboxID: change.Labels[render.SandboxIDLabel], ProjectID: change.Labels[render.ProjectIDLabel],
	}
}

// auditEvent is an event, and the component that it is of.
type auditEvent struct {
	event     audit.Event
	component audit.Component
}

// eventsOf are the events that a change which was made amounts to.
func eventsOf(change plan.Change, stopped bool) []auditEvent {
	switch change.Ref.Kind {
	case "Pod":
		if render.IsWarm(change.Labels) {
			return []auditEvent{{choose(change, audit.WarmPoolPodCreated, audit.PodUpdated, audit.WarmPoolPodDeleted), audit.WarmPool}}
		}
		events := []auditEvent{{choose(change, audit.PodCreated, audit.PodUpdated, audit.PodDeleted), audit.Provider}}
		if stopped {
			events = append([]auditEvent{{audit.PodStopped, audit.Provider}}, events...)
		}
		return events
	case "NetworkPolicy":
		events := []auditEvent{{choose(change, audit.NetworkPolicyCreated, audit.NetworkPolicyUpdated, audit.NetworkPolicyDeleted), audit.NetworkPolicy}}
		switch {
		case change.Labels[render.PolicyTypeLabel] != "default":
		case change.Action == plan.Create:
			events = append(events, auditEvent{audit.NetworkPolicyEnabled, audit.NetworkPolicy})
		case change.Action == plan.Delete:
			events = append(events, auditEvent{audit.NetworkPolicyDisabled, audit.NetworkPolicy})
		}
		return events
	case "ConfigMap", "CiliumNetworkPolicy":
		events := []auditEvent{{choose(change, audit.ObjectCreated, audit.ObjectUpdated, audit.ObjectDeleted), audit.Provider}}
		if change.Ref.Kind == "CiliumNetworkPolicy" || change.Labels[render.ComponentLabel] == render.GatewayComponent {
			events = append(events, auditEvent{audit.EgressHostsUpdated, audit.NetworkPolicy})
		}
		return events
	case "Namespace":
		return []auditEvent{{choose(change, audit.NamespaceCreated, audit.ObjectUpdated, audit.NamespaceDeleted), audit.Provider}}
	case "PersistentVolumeClaim":
		return []auditEvent{{choose(change, audit.PVCCreated, audit.PVCUpdated, audit.PVCDeleted), audit.Provider}}
	}
	if created, ok := rbacCreated()[change.Ref.Kind]; ok {
		return []auditEvent{{choose(change, created, audit.RBACUpdated, audit.RBACDeleted), audit.RBAC}}
	}
	return []auditEvent{{choose(change, audit.ObjectCreated, audit.ObjectUpdated, audit.ObjectDeleted), audit.Provider}}
}

// choose chooses by what becomes of the object. That one is adopted changes it.
func choose(change plan.Change, created, updated, deleted audit.Event) audit.Event {
	switch change.Action {
	case plan.Create, plan.Replace: // that the old one has gone is recorded by itself
		return created
	case plan.Delete:
		return deleted
	}
	return updated
}

func rbacCreated() map[string]audit.Event {
	return map[string]audit.Event{
		"ServiceAccount": audit.ServiceAccountCreated,
		"Role":           audit.RoleCreated, "RoleBinding": audit.RoleBindingCreated,
		"ClusterRole": audit.ClusterRoleCreated, "ClusterRoleBinding": audit.ClusterRoleBindingCreated,
	}
}

// metadataOf is what AgentPane records of an object, and its kind.
func metadataOf(change plan.Change) map[string]any {
	metadata := map[string]any{"kind": change.Ref.Kind}
	if change.Desired == nil {
		return metadata
	}
	switch change.Ref.Kind {
	case "Pod":
		metadata["image"] = render.ImageOf(change.Desired)
	case "PersistentVolumeClaim":
		metadata["storageSize"] = render.SizeOf(change.Desired)
	case "ConfigMap":
		if hosts, ok := render.GatewayHosts(change.Desired); ok {
			metadata["hosts"] = hosts
		}
	}
	return metadata
}
