package plan

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/render"
)

// Rebase returns what is wanted under the names that it has in the cluster. A
// sandbox is known by its label: one that has adopted a warm pod is that pod,
// and its workspace is the volume that it works in, whatever their names are.
// For a sandbox that has no pod yet and may adopt one, its volume is no longer
// among what is wanted, but goes with the pod: a warm one brings its own.
func Rebase(desired []render.Object, live map[Ref]*unstructured.Unstructured) []render.Object {
	pods, volumes := bySandbox(live)
	renamed, dropped := map[string]string{}, map[string]*unstructured.Unstructured{}
	adopting := map[string]bool{}
	for _, object := range desired {
		id := sandboxID(object.Object)
		adopting[id] = adopting[id] || object.Adopted != nil && len(pods[id]) == 0
	}
	rebased := make([]render.Object, 0, len(desired))
	for _, object := range desired {
		if object.Object.GetKind() == volumeKind {
			id, name := sandboxID(object.Object), object.Object.GetName()
			switch found := volumeOf(id, name, pods[id], volumes[id]); {
			case found != "" && found != name:
				renamed[name] = found
				object.Object = object.Object.DeepCopy()
				object.Object.SetName(found)
			case found == "" && adopting[id]:
				dropped[id] = object.Object
				continue
			}
		}
		rebased = append(rebased, object)
	}
	for i := range rebased {
		if rebased[i].Object.GetKind() == "Pod" {
			rebasePod(&rebased[i], pods, renamed, dropped)
		}
	}
	return rebased
}

// rebasePod puts a sandbox on the pod and the volume that it has.
func rebasePod(object *render.Object, pods map[string][]*unstructured.Unstructured, renamed map[string]string, dropped map[string]*unstructured.Unstructured) {
	id, claim := sandboxID(object.Object), render.WorkspaceOf(object.Object)
	if found := renamed[claim]; found != "" {
		object.Object = render.OnPod(object.Object.DeepCopy(), object.Object.GetName(), found)
	}
	if object.Adopted == nil {
		return
	}
	if len(pods[id]) == 0 {
		if object.Volume = dropped[id]; object.Volume == nil && claim != "" {
			object.Adopted = nil // its workspace is there: it starts where its data is
		}
		return
	}
	adopted, pod := object.Adopted, pods[id][0]
	if claim != "" {
		object.Adopted = nil // whatever pod comes next, it works where the data is
	}
	if pod.GetName() == object.Object.GetName() || pod.GetLabels()[render.WarmPoolLabel] != "true" || leased(pod) {
		return
	}
	object.Cold = object.Object
	object.Object = render.OnPod(adopted.DeepCopy(), pod.GetName(), render.WorkspaceOf(pod))
	keepMarks(object.Object, pod)
}

// keepMarks takes over what a claim has left on a pod. The pool stays the one
// whose slot the pod is in.
func keepMarks(desired, pod *unstructured.Unstructured) {
	labels := desired.GetLabels()
	labels[render.PoolIDLabel] = pod.GetLabels()[render.PoolIDLabel]
	desired.SetLabels(labels)
	annotations := desired.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	has := pod.GetAnnotations()
	for _, name := range render.ClaimAnnotations() {
		if value, ok := has[name]; ok {
			annotations[name] = value
		}
	}
	if len(annotations) > 0 {
		desired.SetAnnotations(annotations)
	}
}

// bySandbox returns the live pods and volumes of each sandbox: the pods that
// stay before those that go, and each the oldest first.
func bySandbox(live map[Ref]*unstructured.Unstructured) (pods, volumes map[string][]*unstructured.Unstructured) {
	pods, volumes = map[string][]*unstructured.Unstructured{}, map[string][]*unstructured.Unstructured{}
	for ref, object := range live {
		of := pods
		switch ref.Kind {
		case volumeKind:
			of = volumes
		case "Pod":
		default:
			continue
		}
		if id := sandboxID(object); id != "" {
			of[id] = append(of[id], object)
		}
	}
	for _, of := range []map[string][]*unstructured.Unstructured{pods, volumes} {
		for _, objects := range of {
			if len(objects) > 1 {
				slices.SortFunc(objects, stayingFirst)
			}
		}
	}
	return pods, volumes
}

// stayingFirst sorts what a sandbox has: what comes first is what a plan goes by.
func stayingFirst(a, b *unstructured.Unstructured) int {
	if going := a.GetDeletionTimestamp() != nil; going != (b.GetDeletionTimestamp() != nil) {
		if going {
			return 1
		}
		return -1
	}
	if c := a.GetCreationTimestamp().Compare(b.GetCreationTimestamp().Time); c != 0 {
		return c
	}
	return strings.Compare(a.GetName(), b.GetName())
}

// volumeOf is the name of the volume that a sandbox works in: the one that its
// pod mounts, the one of the name that it would have, or the one with its label.
func volumeOf(id, name string, pods, volumes []*unstructured.Unstructured) string {
	for _, pod := range pods {
		if claim := render.WorkspaceOf(pod); claim != "" {
			return claim
		}
	}
	for _, volume := range volumes {
		if volume.GetName() == name {
			return name
		}
	}
	for _, volume := range volumes {
		if volume.GetDeletionTimestamp() == nil {
			return volume.GetName()
		}
	}
	return ""
}

// sandboxID is the label by which a sandbox's objects are known. It is read as
// it stands: GetLabels copies all of them, of each of many thousands.
func sandboxID(object *unstructured.Unstructured) string {
	id, _, _ := unstructured.NestedString(object.Object, "metadata", "labels", render.SandboxIDLabel)
	return id
}

// leased tells whether a pod is a program's, by a claim.
func leased(pod *unstructured.Unstructured) bool {
	until, _, _ := unstructured.NestedString(pod.Object, "metadata", "annotations", render.LeaseUntilAnnotation) // GetAnnotations copies all
	return until != ""
}
