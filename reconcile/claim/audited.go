package claim

import (
	"errors"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/reconcile/audit"
	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/pool"
	"github.com/agentpane/sandboxctl/render"
)

// A pod is its pool's until it is allocated, and a sandbox's from then on: so
// are the events. What a client notes down for itself, as reservations and the
// pools' state, is not recorded.

// Audit has the client record what it does to pods and volumes, and do nothing
// that cannot be recorded. It is called before the first claim.
func (c *Client) Audit(recorder *audit.Recorder) { c.audit = recorder }

// wrote records the write of a pod: object as it was sent, result as it is now.
func (c *Client) wrote(object, result *unstructured.Unstructured, o order, err error) error {
	if c.audit == nil { // a claim is to be quick
		return nil
	}
	made := object.GetResourceVersion() == NoResourceVersion
	outcome := audit.Outcome{Took: c.now().Sub(o.begun), Err: err, Metadata: map[string]any{"kind": "Pod", "image": render.ImageOf(object)}}
	profile := string(c.fleet.PodSecurity)
	switch {
	case errors.Is(err, errTaken) || err != nil && !made:
		return nil
	case err != nil:
		return c.audit.NotMade(aboutObject(object), profile, failure.CodeOf(err) == failure.PodSecurityViolation, outcome)
	case !made:
		return c.audit.Allocation(aboutObject(result), outcome.Took, max(0, o.warm-1))
	case render.IsWarm(result.GetLabels()):
		return c.audit.Made(audit.WarmPoolPodCreated, audit.WarmPool, aboutObject(result), profile, outcome)
	}
	return c.audit.Made(audit.PodCreated, audit.Provider, aboutObject(result), profile, outcome)
}

// started records that a pod which the order has started is ready, or why not.
func (c *Client) started(object *unstructured.Unstructured, o order, err error) error {
	event := audit.PodStarted
	if err != nil {
		event = audit.PodFailed
	}
	return c.audit.Record(event, audit.Provider, aboutObject(object), audit.Outcome{Took: c.now().Sub(o.begun), Err: err})
}

// changed records what was done to a pod or volume that is known by more than
// its object.
func (c *Client) changed(event audit.Event, component audit.Component, pod pool.Pod, metadata map[string]any) error {
	about := audit.About{Namespace: pod.Namespace, ResourceName: pod.Name}
	if pod.Claim != nil {
		about.SandboxID, about.ProjectID = pod.Claim.Sandbox, pod.Claim.Project
	}
	return c.audit.Record(event, component, about, audit.Outcome{Metadata: metadata})
}

func aboutObject(object *unstructured.Unstructured) audit.About {
	labels := object.GetLabels()
	return audit.About{
		Namespace: object.GetNamespace(), ResourceName: object.GetName(),
		SandboxID: labels[render.SandboxIDLabel], ProjectID: labels[render.ProjectIDLabel],
	}
}
