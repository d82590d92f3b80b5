package plan

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/agentpane/sandboxctl/reconcile/proof"
	"github.com/agentpane/sandboxctl/render"
)

// Input is everything that a plan is made of.
type Input struct {
	Fleet, Namespace string
	// Desired is what is wanted, Live what carries the fleet's label in the
	// cluster.
	Desired []render.Object
	Live    map[Ref]*unstructured.Unstructured
	// Inhabitants has the fleet's pods and volumes where Live is a part of the
	// fleet without them; else it can be nil.
	Inhabitants map[Ref]*unstructured.Unstructured
	// Sandboxes is how many the file names; some may have no objects.
	Sandboxes int
	// Full: nothing is taken for unchanged without the server's word.
	Full bool
	// ReplaceVolumes: a workspace that cannot be changed in place is replaced,
	// with the loss of all data in it.
	ReplaceVolumes bool
	// Sessions are those of each sandbox that is to run. AdoptSessions: those
	// that people made under a declared name are taken over.
	Sessions      []SandboxSessions
	AdoptSessions bool
	Prune
	Pools Pools
	Idle  Idle
	// claimed are the volumes of claimed sandboxes: see claimedVolumes.
	claimed map[string]bool
}

// Prune says how far the removal of what is no longer wanted goes.
type Prune struct {
	// All: a file that names no sandbox removes the last ones.
	All bool
	// Retained: workspaces that are to be retained go as well.
	Retained bool
	// KeepVolumes: no workspace goes at all.
	KeepVolumes bool
	// Namespace: the fleet's own namespace goes too.
	Namespace bool
	// Claims: what programs have claimed goes too, and with it the pools.
	Claims bool
}

// Question is an object that the server must be asked about, by a dry run.
type Question struct {
	Desired *unstructured.Unstructured
	// Live is nil where the fleet has no such object yet.
	Live *unstructured.Unstructured
}

// Answer is what the server said to a question.
type Answer struct {
	// Result is the object as the server would store it.
	Result *unstructured.Unstructured
	// Desired is what is to be applied instead, where admission changes new
	// objects; nil where what was asked about is.
	Desired *unstructured.Unstructured
	// Existing is what the cluster has, where that is another than was seen: it
	// was changed since, or the fleet has no such object.
	Existing *unstructured.Unstructured
	// Immutable names the fields for whose sake the object must be replaced.
	Immutable []string
	// Resize: CPU and memory go by the resize subresource.
	Resize bool
	// Conflicts are fields of other managers; Force says that Result was had
	// by taking them over.
	Conflicts []Conflict
	Force     bool
	// Unvalidated says why the server could not be asked.
	Unvalidated string
	// Problem is the server's refusal.
	Problem error
}

// Questions are the objects that the proof cannot call unchanged.
func (in Input) Questions() []Question {
	var questions []Question
	for _, object := range in.Desired {
		if live := in.Live[RefOf(object.Object)]; !in.unchanged(object.Object, live) {
			questions = append(questions, Question{Desired: object.Object, Live: live})
		}
	}
	return questions
}

func (in Input) unchanged(desired, live *unstructured.Unstructured) bool {
	if live == nil || in.Full || over(live) != "" {
		return false
	}
	unchanged, _ := proof.Unchanged(desired, live, render.Manager)
	return unchanged
}

// isGoing is why an object that is on its way out is none any more.
const isGoing = "it is being deleted"

// over says why a live pod is no longer one: a pod that has ended, or is being
// deleted, does not come back.
func over(live *unstructured.Unstructured) string {
	if live.GetDeletionTimestamp() != nil {
		return isGoing
	}
	if live.GetKind() != "Pod" {
		return ""
	}
	phase, _, _ := unstructured.NestedString(live.Object, "status", "phase")
	if phase != "Failed" && phase != "Succeeded" {
		return ""
	}
	reason, _, _ := unstructured.NestedString(live.Object, "status", "reason")
	if reason == "" {
		reason = phase
	}
	return "it has ended (" + reason + ")"
}

// Over tells whether a live pod is no longer one: it has ended, or is being
// deleted.
func Over(pod *unstructured.Unstructured) bool { return over(pod) != "" }

// Make makes the plan out of the input and the answers to its questions, which
// stand under the names of their objects.
func Make(in Input, answers map[Ref]Answer) Plan {
	plan := Plan{Fleet: in.Fleet, Namespace: in.Namespace, Active: in.Idle.Active}
	wanted := map[Ref]bool{}
	for _, object := range in.Desired {
		ref := RefOf(object.Object)
		wanted[ref] = true
		live := in.Live[ref]
		answer, asked := answers[ref]
		if !asked {
			plan.keep(ref)
			continue
		}
		if change := changeOf(object, live, answer); change != nil {
			plan.Changes = append(plan.Changes, *change)
		} else {
			plan.keep(ref)
		}
	}
	in.succeed(&plan, wanted)
	in.replaceVolumes(&plan)
	plan.Rules().dispel(plan.Changes)
	in.levels(&plan)
	in.relist(&plan)
	in.prune(&plan, wanted)
	sortChanges(plan.Changes)
	sortLevels(plan.Pools)
	return plan
}

// keep counts an object that stays as it is.
func (p *Plan) keep(ref Ref) {
	p.Unchanged++
	if ref.Kind == "Pod" {
		p.Standing = append(p.Standing, ref)
	}
}

// changeOf is what an answer means for an object; nil when it is unchanged.
func changeOf(object render.Object, live *unstructured.Unstructured, answer Answer) *Change {
	change := &Change{
		Ref: RefOf(object.Object), Action: Create, Path: object.Path, Disruption: None,
		Conflicts: answer.Conflicts, Force: answer.Force, Resize: answer.Resize,
		Unvalidated: answer.Unvalidated, Problem: answer.Problem, Desired: object.Object,
		Labels: object.Object.GetLabels(),
	}
	if object.Security != nil && object.Security.Allowed() {
		change.PodSecurity = string(object.Security.Profile)
	}
	before := live
	if answer.Existing != nil {
		before = answer.Existing
		if live == nil && before.GetLabels()[render.PartOfLabel] != object.Object.GetLabels()[render.PartOfLabel] {
			change.Action = Adopt
		}
	}
	if answer.Desired != nil {
		change.Desired = answer.Desired
	}
	change.Adopt = adoptionOf(object)
	change.Problem = maskProblem(change.Problem, object.Object, before)
	if before == nil {
		change.Fields = mask(change.Ref.Kind, Diff(nil, contentOf(object.Object)))
		return change
	}
	change.UID, change.ResourceVersion, change.Seen = before.GetUID(), before.GetResourceVersion(), Digest(before)
	if change.Action == Create {
		change.Action = Update
	}
	why := over(before)
	if why == "" && len(answer.Immutable) > 0 {
		why = "it cannot be changed in place: " + strings.Join(answer.Immutable, ", ")
	}
	switch {
	case why != "":
		change.Action, change.Reason = Replace, why
		if object.Cold != nil {
			change.Desired = object.Cold
		}
		change.Fields = Diff(proof.Owned(before, render.Manager), contentOf(object.Object))
	case answer.Result != nil:
		change.Fields = Diff(before.Object, answer.Result.Object)
		if len(change.Fields) == 0 && change.Action == Update && change.Problem == nil {
			return nil
		}
	default: // the server did not say what would come of it
		change.Fields = Diff(proof.Owned(before, render.Manager), contentOf(object.Object))
	}
	if change.Action != Replace {
		change.Adopt = nil
	}
	change.Disruption = disruptionOf(*change)
	change.Fields = mask(change.Ref.Kind, change.Fields)
	return change
}

// AsMade is what is wanted with the values that admission has given to made,
// which was made of it under whatever name; nil where it has changed none.
func AsMade(desired, made *unstructured.Unstructured) *unstructured.Unstructured {
	asked := desired.DeepCopy()
	asked.SetName(made.GetName())
	owned := proof.Owned(made, render.Manager)
	if unchanged, _ := proof.Unchanged(asked, made, render.Manager); unchanged || owned == nil {
		return nil
	}
	return named(owned, desired)
}

// named is what is owned of an object as what is to be applied to the one of that
// name.
func named(owned map[string]any, name *unstructured.Unstructured) *unstructured.Unstructured {
	object := &unstructured.Unstructured{Object: runtime.DeepCopyJSON(owned)}
	object.SetGroupVersionKind(name.GroupVersionKind())
	object.SetNamespace(name.GetNamespace())
	object.SetName(name.GetName())
	return object
}

// contentOf is an object without what only says which one it is.
func contentOf(object *unstructured.Unstructured) map[string]any {
	content := object.DeepCopy().Object
	for _, field := range [][]string{{"apiVersion"}, {"kind"}, {"metadata", "name"}, {"metadata", "namespace"}} {
		unstructured.RemoveNestedField(content, field...)
	}
	return content
}

// disruptionOf is what a change means to those who work in the pod.
func disruptionOf(change Change) Disruption {
	if change.Ref.Kind != "Pod" {
		return None
	}
	switch change.Action {
	case Replace:
		return Replaces
	case Delete:
		return Ends
	}
	if slices.ContainsFunc(change.Fields, func(field Field) bool { return restarts(change.Desired, field.Path) }) {
		return Restarts
	}
	return None
}

// restarts tells whether the kubelet starts a container of the pod anew when that
// field changes. Of what can change in a running pod, its image does so, and CPU
// or memory where its resizePolicy says so.
func restarts(pod *unstructured.Unstructured, path string) bool {
	if strings.HasPrefix(path, ".spec.") && !strings.HasPrefix(path, ".spec.initContainers[") && strings.HasSuffix(path, ".image") {
		return true
	}
	resource := containerResource.FindStringSubmatch(path)
	if resource == nil {
		return false
	}
	containers, _, _ := unstructured.NestedSlice(pod.Object, "spec", "containers")
	return slices.ContainsFunc(containers, func(container any) bool {
		c, _ := container.(map[string]any)
		policies, _, _ := unstructured.NestedSlice(c, "resizePolicy")
		return c["name"] == resource[1] && slices.ContainsFunc(policies, func(policy any) bool {
			p, _ := policy.(map[string]any)
			return p["resourceName"] == resource[2] && p["restartPolicy"] == string(corev1.RestartContainer)
		})
	})
}

// containerResource is the path of an amount that a container asks for.
var containerResource = regexp.MustCompile(`^\.spec\.containers\[([^]]*)\]\.resources\.(?:limits|requests)\.([^.]*)$`)

// prune plans the deletion of what carries the fleet's label and is no longer
// wanted, and says what stays in spite of that.
func (in Input) prune(plan *Plan, wanted map[Ref]bool) {
	in.claimed = in.claimedVolumes()
	emptied := in.isEmptied()
	for ref, live := range in.Live {
		if wanted[ref] || in.Idle.stays[ref] || live.GetDeletionTimestamp() != nil {
			continue
		}
		stop := in.Idle.stops[ref]
		stays, why := in.pooled(live)
		why = cmp.Or(stop.reason, why)
		if stays {
			continue
		}
		if reason := in.kept(ref, live, emptied); reason != "" && why == "" {
			plan.Kept = append(plan.Kept, Kept{Ref: ref, Reason: reason})
			continue
		}
		change := Change{
			Ref: ref, Action: Delete, Reason: cmp.Or(why, "it is no longer in the file"),
			UID: live.GetUID(), ResourceVersion: live.GetResourceVersion(), Seen: Digest(live),
			Labels: live.GetLabels(), IdleSince: stop.since,
		}
		if why == "" && live.GetLabels()[render.IdleLabel] != "" {
			change.Reason = "its sandbox is no longer stopped for being idle"
		}
		change.Disruption = disruptionOf(change)
		plan.Changes = append(plan.Changes, change)
	}
	slices.SortFunc(plan.Kept, func(a, b Kept) int {
		return strings.Compare(fmt.Sprint(a.Ref), fmt.Sprint(b.Ref))
	})
}

// isEmptied tells whether the file names no sandbox at all, and somebody still
// has one. That can be a mistake: not even what a sandbox lives by goes then.
func (in Input) isEmptied() bool {
	if in.Sandboxes > 0 || in.Prune.All {
		return false
	}
	inhabitants := in.Inhabitants
	if inhabitants == nil {
		inhabitants = in.Live
	}
	for ref, live := range inhabitants {
		if live.GetDeletionTimestamp() != nil || ref.Kind != "Pod" && ref.Kind != volumeKind {
			continue
		}
		claimed, why := in.pooled(live)
		if why == "" && (!claimed || in.Pools.Declared == 0) {
			return true
		}
	}
	return false
}

// kept says why an object that is not wanted stays; empty when it goes. emptied:
// see isEmptied.
func (in Input) kept(ref Ref, live *unstructured.Unstructured, emptied bool) string {
	isVolume := ref.Kind == volumeKind
	switch {
	case ref.Kind == "Namespace" && !in.Prune.Namespace:
		return "a namespace is removed by destroy only"
	case isVolume && in.KeepVolumes:
		return "workspaces are kept"
	case isVolume && live.GetLabels()[render.RetainLabel] == "true" && !in.Retained:
		return "the workspace is to be retained: --delete-retained-workspaces removes it"
	case in.listsClaimed(ref):
		return "a claimed sandbox, whose pool is no longer in the file, is under it"
	case emptied:
		return "the file names no sandbox at all: --prune-all removes the last ones"
	}
	return ""
}
