package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/pool"
	"github.com/agentpane/sandboxctl/render"
)

// Pools is what a plan needs to know of warm pools, beside the objects.
type Pools struct {
	// Pools are those of the file, and Declared is how many it has: they are left
	// out of the plan of a sandbox that has nothing to do with them.
	Pools    []render.Pool
	Declared int
	// Cordoned are the nodes that take no pods any more.
	Cordoned map[string]bool
	// Live has all pods of the pools, and what is kept of them beside. Where it
	// is nil, nothing is decided about how many there are to be.
	Live map[Ref]*unstructured.Unstructured
	// Now is the time by which leases run out and pods are late; Random makes
	// the names of volumes.
	Now    time.Time
	Random func() string
}

// PoolLevel is a pool whose level changes.
type PoolLevel struct {
	Name, Path string
	// From is how many warm pods there are that are as they should be, To how
	// many there are to be.
	From, To int
	// Changes are the pods that are made, with their volumes, and those that go.
	// Which these are matters to nobody: where one of them was claimed
	// meanwhile, or is there already, it is left alone.
	Changes []Change
}

// Count is the number of pods with that change.
func (l PoolLevel) Count(action Action) int {
	n := 0
	for _, change := range l.Changes {
		if change.Action == action {
			n++
		}
	}
	return n
}

// Reasons are why pods go, each once, with their number.
func (l PoolLevel) Reasons() []string {
	var reasons []string
	numbers := map[string]int{}
	for _, change := range l.Changes {
		if change.Reason == "" {
			continue
		}
		if numbers[change.Reason]++; numbers[change.Reason] == 1 {
			reasons = append(reasons, change.Reason)
		}
	}
	for i, reason := range reasons {
		reasons[i] = fmt.Sprintf("%d: %s", numbers[reason], reason)
	}
	return reasons
}

// Adoption is how a sandbox without a pod gets one out of a pool.
type Adoption struct {
	// Pool is the pool's name, Sandbox the sandbox's, both as labels have them.
	Pool    string `json:"pool"`
	Sandbox string `json:"sandbox"`
	// Object makes a warm pod the sandbox's: see render.OnPod.
	Object map[string]any `json:"object,omitempty"`
	// Volume is the claim of its workspace where it starts cold; nil where it
	// has none, or it is there already.
	Volume map[string]any `json:"volume,omitempty"`
}

func adoptionOf(object render.Object) *Adoption {
	if object.Adopted == nil {
		return nil
	}
	adoption := &Adoption{
		Pool: object.Adopted.GetLabels()[render.PoolIDLabel], Sandbox: sandboxID(object.Adopted), Object: object.Adopted.Object,
	}
	if object.Volume != nil {
		adoption.Volume = object.Volume.Object
	}
	return adoption
}

// poolPods are the pods of pools, by the pools' names as labels have them.
func (in Input) poolPods() map[string][]pool.Pod {
	if len(in.Pools.Pools) == 0 {
		return nil
	}
	pods := map[string][]pool.Pod{}
	for ref, object := range in.Pools.Live {
		if ref.Kind == "Pod" {
			if pod, ok := pool.Read(object); ok {
				pods[pod.Pool] = append(pods[pod.Pool], pod)
			}
		}
	}
	return pods
}

// levels plans the pools' levels; the plan's adoptions are taken into account.
func (in Input) levels(plan *Plan) {
	if in.Pools.Live == nil {
		return
	}
	pods := in.poolPods()
	for _, p := range in.Pools.Pools {
		id := p.Pod.GetLabels()[render.PoolIDLabel]
		state, err := pool.ReadState(in.poolState(p.Name))
		if err != nil {
			state = pool.State{} // somebody has written into it: it only steers the size
		}
		input := pool.Input{
			Pool: p, Pods: pods[id], Cordoned: in.Pools.Cordoned, State: state, Now: in.Pools.Now,
			Adopting: in.adoptions(plan, p, id, pods[id]),
		}
		level := pool.At(input)
		if !level.Unchanged() {
			plan.Pools = append(plan.Pools, in.poolLevel(p, level))
		}
	}
}

// adoptions says how the plan's sandboxes without a pod get one, and returns
// how many of them will find a ready pod in this pool.
func (in Input) adoptions(plan *Plan, p render.Pool, id string, pods []pool.Pod) int {
	ready := map[string]int{}
	for i := range pods {
		if pod := &pods[i]; pod.Usable(pod.Blueprint, in.Pools.Cordoned) {
			ready[pod.Blueprint]++
		}
	}
	adopting := 0
	for i := range plan.Changes {
		change := &plan.Changes[i]
		if change.Adopt == nil || change.Adopt.Pool != id {
			continue
		}
		needs, _, _ := unstructured.NestedString(change.Adopt.Object, "metadata", "labels", render.BlueprintLabel)
		reason := "it adopts a warm pod of pool " + p.Name
		switch {
		case ready[needs] > 0:
			ready[needs]--
			if needs == p.Hash {
				adopting++
			}
		case needs != p.Hash:
			reason = "it starts cold: it asks for more than the pods of pool " + p.Name + " have"
		default:
			reason = "it starts cold: no pod of pool " + p.Name + " is ready"
		}
		if change.Reason != "" {
			reason = change.Reason + "; " + reason
		}
		change.Reason = reason
	}
	return adopting
}

func (in Input) poolLevel(p render.Pool, level pool.Level) PoolLevel {
	changed := PoolLevel{Name: p.Name, Path: p.Path, From: level.From, To: level.To}
	for _, slot := range level.Create {
		random := ""
		if p.Volume != nil {
			random = in.Pools.Random()
		}
		pod, volume := p.WarmPod(slot, random)
		change := Change{Ref: RefOf(pod), Action: Create, Path: p.Path, Disruption: None, Desired: pod, Labels: pod.GetLabels()}
		if volume != nil {
			change.Volume = volume
		}
		changed.Changes = append(changed.Changes, change)
	}
	for _, removal := range level.Delete {
		ref := Ref{GroupVersionKind: podKind, Namespace: removal.Pod.Namespace, Name: removal.Pod.Name}
		change := Change{
			Ref: ref, Action: Delete, Path: p.Path, Disruption: None, Reason: removal.Reason,
			UID: removal.Pod.UID, ResourceVersion: removal.Pod.ResourceVersion,
		}
		if live := in.Pools.Live[ref]; live != nil {
			change.Seen, change.Labels = Digest(live), live.GetLabels()
		}
		changed.Changes = append(changed.Changes, change)
	}
	return changed
}

// PoolQuestions are pods that the plan makes for pools: of each pool one, unless
// the pool has one like it, as the server has taken that.
func (in Input) PoolQuestions(p Plan) []Question {
	taken := map[string]bool{}
	for _, live := range in.Pools.Live {
		taken[live.GetLabels()[render.BlueprintLabel]] = !in.Full
	}
	var questions []Question
	for _, level := range p.Pools {
		at := slices.IndexFunc(level.Changes, func(c Change) bool { return c.Action == Create })
		if at >= 0 && !taken[level.Changes[at].Labels[render.BlueprintLabel]] {
			questions = append(questions, Question{Desired: level.Changes[at].Desired})
		}
	}
	return questions
}

// AnswerPools notes what the server said to PoolQuestions. That there is no room
// for a pod now is no reason to change nothing else, and that its slot is taken by
// now is none at all.
func (p *Plan) AnswerPools(answers map[Ref]Answer) {
	rules := p.Rules()
	for _, level := range p.Pools {
		for i := range level.Changes {
			change := &level.Changes[i]
			answer := answers[change.Ref]
			change.Unvalidated = answer.Unvalidated
			switch failure.CodeOf(answer.Problem) {
			case failure.Conflict, failure.AdoptionRefused:
			case failure.InsufficientResources:
				change.Unvalidated = "the server would refuse it now: " + answer.Problem.Error()
			default:
				change.Problem = maskProblem(answer.Problem, change.Desired)
			}
		}
		rules.dispel(level.Changes)
	}
}

// WithoutRefusedPools is the plan without the pools that cannot have their levels,
// and what keeps them from that.
func (p Plan) WithoutRefusedPools() (rest Plan, refused []Change) {
	pools := p.Pools
	p.Pools = nil
	for _, level := range pools {
		if blocked := blockedOf(level.Changes); len(blocked) > 0 {
			refused = append(refused, blocked...)
		} else {
			p.Pools = append(p.Pools, level)
		}
	}
	return p, refused
}

// poolState is what the cluster keeps of a pool beside its pods.
func (in Input) poolState(name string) string {
	for ref, object := range in.Pools.Live {
		if ref.Kind == "ConfigMap" && ref.Name == render.PoolStateName(in.Fleet) {
			text, _, _ := unstructured.NestedString(object.Object, "data", name)
			return text
		}
	}
	return ""
}

// pooled says what becomes of a pool's object that is no declared sandbox's:
// stays tells whether it does, why says why it goes.
func (in Input) pooled(live *unstructured.Unstructured) (stays bool, why string) {
	if in.Prune.Claims {
		return false, ""
	}
	if live.GetKind() == "ConfigMap" && live.GetName() == render.PoolStateName(in.Fleet) {
		return true, ""
	}
	labels := live.GetLabels()
	if labels[render.WarmPoolLabel] != "true" {
		return false, ""
	}
	if live.GetKind() == volumeKind { // it goes with the pod that owns it, or is in use
		return len(live.GetOwnerReferences()) > 0 || in.claimed[live.GetName()], ""
	}
	pod, ok := pool.Read(live)
	switch {
	case !ok:
		return false, ""
	case pod.Claim == nil:
		_, declared := in.poolOf(live)
		return declared, "its pool is no longer in the file"
	case pod.Claim.Until.IsZero():
		return false, ""
	case pod.Claim.Expired(in.Pools.Now):
		return false, fmt.Sprintf("the claim of %s ran out at %s", cmp.Or(pod.Claim.By, "somebody"), pod.Claim.Until.UTC().Format(time.RFC3339))
	}
	return true, ""
}

// succeed makes one change of a sandbox's new pod and the old one that it takes
// the place of, where that has another name: a sandbox never has two pods. It
// marks the old ones as spoken for.
func (in Input) succeed(plan *Plan, wanted map[Ref]bool) {
	var pods map[string][]*unstructured.Unstructured
	for i := range plan.Changes {
		change := &plan.Changes[i]
		if change.Ref.Kind != "Pod" || change.Action != Create {
			continue
		}
		if pods == nil {
			pods, _ = bySandbox(in.Live)
		}
		id := sandboxID(change.Desired)
		if id == "" || len(pods[id]) == 0 {
			continue
		}
		old := pods[id][0]
		if leased(old) && old.GetDeletionTimestamp() == nil {
			object := failure.Object{Kind: "pod", Namespace: change.Ref.Namespace, Name: old.GetName()}
			change.Problem = failure.New(failure.AdoptionRefused, object, "a program has claimed a sandbox of that name, %s, until %s",
				id, old.GetAnnotations()[render.LeaseUntilAnnotation]).
				WithHint("Release it, or give the one of the file another name.")
			continue
		}
		change.Ref, change.Action, change.Disruption = RefOf(old), Replace, Replaces
		change.Reason = "its pod is to have another name"
		if why := over(old); why != "" {
			change.Reason = why
		}
		change.UID, change.ResourceVersion, change.Seen = old.GetUID(), old.GetResourceVersion(), Digest(old)
		wanted[change.Ref] = true
	}
}

// sortLevels puts pools in the order of their names.
func sortLevels(levels []PoolLevel) {
	slices.SortFunc(levels, func(a, b PoolLevel) int { return strings.Compare(a.Name, b.Name) })
}
