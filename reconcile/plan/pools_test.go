package plan

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/render"
)

// poolPod is a pod of a pool, of that blueprint.
func poolPod(t *testing.T, name, blueprint string) *unstructured.Unstructured {
	object := pod(t, name, `{}`)
	labels := object.GetLabels()
	labels[render.BlueprintLabel] = blueprint
	object.SetLabels(labels)
	return object
}

// poolPlan makes two pods of blueprint new, after one goes.
func poolPlan(t *testing.T, changes ...Change) Plan {
	level := PoolLevel{Name: "p", Changes: []Change{{Action: Delete, Labels: map[string]string{render.BlueprintLabel: "new"}}}}
	for _, name := range []string{"p-0", "p-1"} {
		object := poolPod(t, name, "new")
		level.Changes = append(level.Changes, Change{Ref: RefOf(object), Action: Create, Desired: object, Labels: object.GetLabels()})
	}
	return Plan{Changes: changes, Pools: []PoolLevel{level}}
}

// TestPoolQuestions: the server is asked about one pod of a pool, unless the pool
// has its like.
func TestPoolQuestions(t *testing.T) {
	for name, test := range map[string]struct {
		live string // the blueprint of the pool's pod
		full bool
		want int
	}{
		"others":               {"old", false, 1},
		"its like":             {"new", false, 0},
		"its like, all anew":   {"new", true, 1},
		"none of any pool yet": {"", false, 1},
	} {
		live := poolPod(t, "p-2", test.live)
		in := Input{Full: test.full, Pools: Pools{Live: map[Ref]*unstructured.Unstructured{RefOf(live): live}}}
		questions := in.PoolQuestions(poolPlan(t))
		if len(questions) != test.want || test.want > 0 && questions[0].Desired.GetName() != "p-0" {
			t.Errorf("%s: asked %v", name, questions)
		}
	}
	if questions := (Input{}).PoolQuestions(Plan{Pools: []PoolLevel{{Changes: []Change{{Action: Delete}}}}}); len(questions) != 0 {
		t.Errorf("asked about a pod that goes: %v", questions)
	}
}

// TestAnswerPools: what a pool can never have keeps the plan from being applied,
// and what it cannot have yet does not.
func TestAnswerPools(t *testing.T) {
	object := failure.Object{Kind: "pod", Name: "p-0"}
	namespace := Change{Ref: Ref{GroupVersionKind: podKind.GroupVersion().WithKind("Namespace"), Name: "n"}, Action: Update}
	for name, test := range map[string]struct {
		answer      Answer
		changes     []Change
		blocked     int
		unvalidated bool
	}{
		"it is taken":              {Answer{}, nil, 0, false},
		"no namespace yet":         {Answer{Unvalidated: "no namespace"}, nil, 0, true},
		"it is not valid":          {Answer{Problem: failure.New(failure.Invalid, object, "no")}, nil, 1, false},
		"no room":                  {Answer{Problem: failure.New(failure.InsufficientResources, object, "full")}, nil, 0, true},
		"its slot has a pod":       {Answer{Problem: failure.New(failure.Conflict, object, "there")}, nil, 0, false},
		"its slot has another pod": {Answer{Problem: failure.New(failure.AdoptionRefused, object, "there")}, nil, 0, false},
		"the profile":              {Answer{Problem: failure.New(failure.PodSecurityViolation, object, "no")}, nil, 1, false},
		"the profile that was":     {Answer{Problem: failure.New(failure.PodSecurityViolation, object, "no")}, []Change{namespace}, 0, true},
	} {
		p := poolPlan(t, test.changes...)
		made := p.Pools[0].Changes[1]
		p.AnswerPools(map[Ref]Answer{made.Ref: test.answer})
		made = p.Pools[0].Changes[1]
		if blocked := p.Blocked(); len(blocked) != test.blocked || (made.Unvalidated != "") != test.unvalidated {
			t.Errorf("%s: blocked %v, unvalidated %q", name, blocked, made.Unvalidated)
		}
	}
}
