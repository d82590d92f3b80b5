// Package pool decides what becomes of the pods of a warm pool: how many there
// are to be, which are made, and which go. It is pure: of a pool's settings,
// its pods as the cluster shows them, and a time. It never talks to a cluster
// and never prints; package claim takes pods out of a pool, package reconcile
// does what is decided here.
package pool

import (
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/agentpane/sandboxctl/render"
)

// Pod is what matters of a pool's pod, and no more: there can be very many.
type Pod struct {
	Name, Namespace string
	UID             types.UID
	ResourceVersion string
	// Pool is the pool's name as a label has it, Node empty before the pod has one.
	Pool, Node, Blueprint string
	Created               time.Time
	// Going: it is being deleted. Ended says why it does not run any more;
	// empty when it may yet.
	Going bool
	Ended string
	// Ready, and since when it is that or is not.
	Ready bool
	Since time.Time
	// Unschedulable: no node has room for it; one whose volume is missing could run.
	Unschedulable bool
	// Evicted: its node is to be emptied, or fails.
	Evicted bool
	// Volume is its workspace's claim, if it has a persistent one.
	Volume string
	// KeepUntil is until when it stays though it is one too many; it was
	// ordered in advance.
	KeepUntil time.Time
	// Claim is nil while the pod is warm.
	Claim *Claim
}

// Claim is what a claim has left on its pod.
type Claim struct {
	Sandbox, Project string
	// ID is that of the one write; empty for what wrote none.
	ID string
	// At is when it was claimed, By whom; empty for a declared sandbox.
	At time.Time
	By string
	// Until is when it ends by itself; zero for a declared sandbox.
	Until time.Time
	// Warm: a pod was there. Else the claim had to start one.
	Warm bool
	// Took is the time from the claim's begin to its write.
	Took time.Duration
}

// Expired tells whether the claim's lease has run out.
func (c *Claim) Expired(now time.Time) bool {
	return c != nil && !c.Until.IsZero() && now.After(c.Until)
}

// Read returns what matters of a pod; false when it is no pool's.
func Read(object *unstructured.Unstructured) (Pod, bool) {
	labels := object.GetLabels()
	if object.GetKind() != "Pod" || labels[render.WarmPoolLabel] != "true" {
		return Pod{}, false
	}
	annotations := object.GetAnnotations()
	pod := Pod{
		Name: object.GetName(), Namespace: object.GetNamespace(), UID: object.GetUID(), ResourceVersion: object.GetResourceVersion(),
		Pool: labels[render.PoolIDLabel], Blueprint: labels[render.BlueprintLabel],
		Created: object.GetCreationTimestamp().Time, Going: object.GetDeletionTimestamp() != nil,
		Volume: render.WorkspaceOf(object), KeepUntil: timeOf(annotations[render.KeepUntilAnnotation]),
	}
	pod.Node, _, _ = unstructured.NestedString(object.Object, "spec", "nodeName")
	pod.readStatus(object)
	if labels[render.WarmStateLabel] != render.Warm { // whatever else it says, it is not free
		pod.Claim = &Claim{
			Sandbox: labels[render.SandboxIDLabel], Project: labels[render.ProjectIDLabel],
			ID: annotations[render.ClaimIDAnnotation], By: annotations[render.ClaimedByAnnotation],
			At: timeOf(annotations[render.ClaimedAtAnnotation]), Until: timeOf(annotations[render.LeaseUntilAnnotation]),
			Warm: annotations[render.OriginAnnotation] == render.Warm,
		}
		if ms, err := strconv.Atoi(annotations[render.ClaimTimeAnnotation]); err == nil {
			pod.Claim.Took = time.Duration(ms) * time.Millisecond
		}
	}
	return pod, true
}

func (p *Pod) readStatus(object *unstructured.Unstructured) {
	status, _ := object.Object["status"].(map[string]any)
	phase, _ := status["phase"].(string)
	if phase == string(corev1.PodFailed) || phase == string(corev1.PodSucceeded) {
		p.Ended = phase
		if reason, _ := status["reason"].(string); reason != "" {
			p.Ended = reason
		}
	}
	conditions, _ := status["conditions"].([]any)
	for _, item := range conditions {
		condition, _ := item.(map[string]any)
		is := condition["status"] == "True"
		switch condition["type"] {
		case string(corev1.PodReady):
			p.Ready = is
			since, _ := condition["lastTransitionTime"].(string)
			p.Since = timeOf(since)
		case string(corev1.PodScheduled):
			message, _ := condition["message"].(string)
			p.Unschedulable = !is && condition["reason"] == corev1.PodReasonUnschedulable && !VolumeIsMissing(message)
		case string(corev1.DisruptionTarget):
			p.Evicted = is
		}
	}
}

// VolumeIsMissing tells by what the scheduler says whether it has looked for a
// pod's volume before that was there. It goes on saying so while the volume is
// provisioned.
func VolumeIsMissing(message string) bool {
	return strings.Contains(message, "persistentvolumeclaim ") && strings.Contains(message, "not found")
}

// timeOf is the time that an annotation holds; zero where it holds none.
func timeOf(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return time.Time{}
	}
	return t
}

// Usable tells whether a sandbox that needs a pod of that blueprint can have
// this one now. cordoned are the nodes that take no pods any more.
func (p *Pod) Usable(blueprint string, cordoned map[string]bool) bool {
	return p.Claim == nil && p.Ready && p.healthy(cordoned) && p.Blueprint == blueprint
}

// healthy: nothing is known that speaks against the pod.
func (p *Pod) healthy(cordoned map[string]bool) bool {
	return !p.Going && p.Ended == "" && !p.Evicted && (p.Node == "" || !cordoned[p.Node])
}

// byAge sorts pods, the oldest first.
func byAge(pods []*Pod) {
	slices.SortFunc(pods, func(a, b *Pod) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return compareNames(a.Name, b.Name)
	})
}

// compareNames has slot 9 before slot 10.
func compareNames(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
