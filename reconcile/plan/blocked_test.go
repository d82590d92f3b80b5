package plan

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/render"
)

func claim(t *testing.T, name, class string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: parse(t, `{"apiVersion":"v1","kind":"PersistentVolumeClaim",
		"metadata":{"name":"`+name+`","namespace":"n",`+ours+`},"spec":{"storageClassName":"`+class+`"}}`)}
}

// TestWorkspacesAreNotReplacedUnasked: and where they are, what mounts them is
// replaced with them, and nothing else.
func TestWorkspacesAreNotReplacedUnasked(t *testing.T) {
	const mounts = `{"volumes":[{"persistentVolumeClaim":{"claimName":"data"}}]}`
	user, other := pod(t, "user", mounts), pod(t, "other", `{"volumes":[{"emptyDir":{}}]}`)
	after := claim(t, "data", "fast")
	in := input(wanted(after, user, other), applied(t, claim(t, "data", "slow")), applied(t, user), applied(t, other))
	answers := map[Ref]Answer{RefOf(after): {Immutable: []string{"spec"}}}

	p := Make(in, answers)
	if blocked := p.Blocked(); len(blocked) != 1 || failure.CodeOf(blocked[0].Problem) != failure.Immutable ||
		!strings.Contains(blocked[0].Problem.Error(), volumeIsLost) || len(p.Changes) != 1 || p.Unchanged != 2 {
		t.Errorf("unasked: got %+v", p)
	}

	in.ReplaceVolumes = true
	p = Make(in, answers)
	if len(p.Blocked()) != 0 || p.Count(Replace) != 2 || p.Unchanged != 1 || p.Changes[1].Ref != RefOf(user) ||
		p.Changes[1].Disruption != Replaces || p.Changes[1].UID == "" || len(p.Changes[1].Labels) == 0 || !strings.Contains(p.Changes[0].Reason, volumeIsLost) {
		t.Errorf("asked for: got %+v", p)
	}

	// A pod that changes for another reason is replaced all the same, once.
	in.Desired = wanted(after, pod(t, "user", mounts), other)
	answers[RefOf(user)] = Answer{Result: pod(t, "user", `{"image":"x"}`), Resize: true}
	p = Make(in, answers)
	if p.Count(Replace) != 2 || len(p.Changes) != 2 || p.Changes[1].Resize {
		t.Errorf("a pod that changes: got %+v", p)
	}
}

// TestWorkspacesThatAreDeleted: one that somebody deletes under a sandbox that
// runs is not lost unasked; what nobody holds back is waited for.
func TestWorkspacesThatAreDeleted(t *testing.T) {
	const mounts = `{"nodeName":"n","volumes":[{"persistentVolumeClaim":{"claimName":"data"}}]}`
	now := metav1.Now()
	goes, user, leaver := applied(t, claim(t, "data", "slow")), applied(t, pod(t, "user", mounts)), applied(t, pod(t, "leaver", mounts))
	pending := applied(t, pod(t, "pending", strings.Replace(mounts, `"nodeName":"n",`, "", 1)))
	goes.SetDeletionTimestamp(&now)
	leaver.SetDeletionTimestamp(&now)
	desired := claim(t, "data", "slow")
	answers := map[Ref]Answer{RefOf(desired): {Result: desired}}
	for name, test := range map[string]struct {
		live    *unstructured.Unstructured
		blocked int
	}{"mounted": {user, 1}, "left": {leaver, 0}, "pending": {pending, 0}} {
		p := Make(input(wanted(desired), goes, test.live), answers)
		if p.Count(Replace) != 1 || len(p.Blocked()) != test.blocked {
			t.Errorf("%s: got %+v", name, p)
		}
	}
}

// TestRefusalsByRulesThatChange: the server judges by the rule that is there,
// and the plan brings another one.
func TestRefusalsByRulesThatChange(t *testing.T) {
	rule := func(kind string) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: parse(t, `{"apiVersion":"v1","kind":"`+kind+`","metadata":{"name":"r","namespace":"n"},"spec":{"hard":{"pods":"2"}}}`)}
	}
	object := failure.Object{Kind: "pod", Name: "a"}
	for name, test := range map[string]struct {
		refusal *failure.Error
		rule    string
		stays   bool
	}{
		"a quota":              {failure.New(failure.InsufficientResources, object, "no room").With("quota", "r"), "ResourceQuota", false},
		"limits":               {failure.New(failure.AdmissionRefused, object, "too much"), "LimitRange", false},
		"Pod Security":         {failure.New(failure.PodSecurityViolation, object, "root"), "Namespace", false},
		"another rule":         {failure.New(failure.PodSecurityViolation, object, "root"), "LimitRange", true},
		"a webhook":            {failure.New(failure.AdmissionRefused, object, "no").With("by", "webhook x"), "LimitRange", true},
		"an unschedulable one": {failure.New(failure.InsufficientResources, object, "no node"), "ResourceQuota", true},
	} {
		for _, changes := range []bool{true, false} {
			a, r := pod(t, "a", `{}`), rule(test.rule)
			before := r.DeepCopy()
			if changes {
				before.Object["spec"] = map[string]any{}
			}
			in := input([]render.Object{{Object: a}, {Object: r}}, applied(t, before))
			p := Make(in, map[Ref]Answer{RefOf(a): {Problem: test.refusal}, RefOf(r): {Result: r}})
			if blocked := len(p.Blocked()) > 0; blocked != (test.stays || !changes) {
				t.Errorf("%s, which changes (%v): blocked is %v", name, changes, blocked)
			}
		}
	}
}
