package plan

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/reconcile/failure"
)

const (
	volumeKind   = "PersistentVolumeClaim"
	volumeIsLost = "all data in the workspace is lost"
)

// podKind is the kind of pods.
var podKind = corev1.SchemeGroupVersion.WithKind("Pod")

// replaceVolumes sees to it that no workspace is replaced, which loses what is
// in it, unless that is wanted; and that where it is, the pods that mount it
// are replaced as well, as a claim goes only after them. One that is on its way
// out, and that no pod holds back, has only its end to be waited for.
func (in Input) replaceVolumes(plan *Plan) {
	claims := map[string]bool{}
	for i := range plan.Changes {
		change := &plan.Changes[i]
		if change.Ref.Kind != volumeKind || change.Action != Replace {
			continue
		}
		if change.Reason == isGoing && !in.isMounted(change.Ref.Name) {
			continue
		}
		claims[change.Ref.Name] = true
		if !in.ReplaceVolumes && change.Problem == nil {
			object := failure.Object{Kind: change.Ref.Kind, Namespace: change.Ref.Namespace, Name: change.Ref.Name}
			change.Problem = failure.New(failure.Immutable, object, "%s would have to be replaced, and %s: %s", change, volumeIsLost, change.Reason).
				WithHint("Take the change back; or save the data, and say --replace-workspaces.")
		}
		change.Reason += "; " + volumeIsLost
	}
	if len(claims) == 0 || !in.ReplaceVolumes {
		return
	}
	for _, object := range in.Desired {
		live := in.Live[RefOf(object.Object)]
		if live != nil && mountsAny(live, claims) {
			plan.replace(Change{
				Ref: RefOf(object.Object), Action: Replace, Path: object.Path, Disruption: Replaces,
				Reason: "its workspace is replaced", Desired: object.Object, Labels: object.Object.GetLabels(),
				UID: live.GetUID(), ResourceVersion: live.GetResourceVersion(), Seen: Digest(live),
			})
		}
	}
}

// replace makes the change of an object a replacement, also where it had none.
func (p *Plan) replace(change Change) {
	for i := range p.Changes {
		if known := &p.Changes[i]; known.Ref == change.Ref {
			if known.Action == Update {
				known.Action, known.Reason, known.Disruption, known.Resize = Replace, change.Reason, Replaces, false
			}
			return
		}
	}
	p.Changes = append(p.Changes, change)
	p.Unchanged--
}

// isMounted tells whether a pod that stays mounts the claim. One without a node
// does not hold it back, and none that is on its way out is given a node.
func (in Input) isMounted(claim string) bool {
	for _, live := range in.Live {
		node, _, _ := unstructured.NestedString(live.Object, "spec", "nodeName")
		if node != "" && live.GetDeletionTimestamp() == nil && mountsAny(live, map[string]bool{claim: true}) {
			return true
		}
	}
	return false
}

func mountsAny(pod *unstructured.Unstructured, claims map[string]bool) bool {
	for _, name := range ClaimsOf(pod) {
		if claims[name] {
			return true
		}
	}
	return false
}

// ClaimsOf are the names of the volume claims that a pod mounts.
func ClaimsOf(pod *unstructured.Unstructured) []string {
	if pod == nil || pod.GetKind() != "Pod" {
		return nil
	}
	var names []string
	volumes, _, _ := unstructured.NestedSlice(pod.Object, "spec", "volumes")
	for _, volume := range volumes {
		volume, _ := volume.(map[string]any)
		if name, found, _ := unstructured.NestedString(volume, "persistentVolumeClaim", "claimName"); found {
			names = append(names, name)
		}
	}
	return names
}
