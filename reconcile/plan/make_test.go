package plan

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

const ours = `"labels":{"applyset.kubernetes.io/part-of":"ours"}`

func pod(t *testing.T, name, spec string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: parse(t, `{"apiVersion":"v1","kind":"Pod",
		"metadata":{"name":"`+name+`","namespace":"n",`+ours+`},"spec":`+spec+`}`)}
}

// applied is the object as the server keeps it after an apply.
func applied(t *testing.T, object *unstructured.Unstructured) *unstructured.Unstructured {
	live := object.DeepCopy()
	live.SetUID("uid-1")
	live.SetResourceVersion("7")
	entry := parse(t, `{"manager":"sandboxctl","operation":"Apply","apiVersion":"v1","fieldsType":"FieldsV1",
		"fieldsV1":{"f:metadata":{"f:labels":{"f:applyset.kubernetes.io/part-of":{}}},"f:spec":{"f:image":{},"f:cpu":{}}}}`)
	if err := unstructured.SetNestedSlice(live.Object, []any{entry}, "metadata", "managedFields"); err != nil {
		t.Fatal(err)
	}
	return live
}

func input(desired []render.Object, live ...*unstructured.Unstructured) Input {
	in := Input{Fleet: "f", Namespace: "n", Desired: desired, Sandboxes: len(desired), Live: map[Ref]*unstructured.Unstructured{}}
	for _, object := range live {
		in.Live[RefOf(object)] = object
	}
	return in
}

func wanted(objects ...*unstructured.Unstructured) []render.Object {
	var desired []render.Object
	for _, object := range objects {
		desired = append(desired, render.Object{Object: object, Path: "sandboxes." + object.GetName()})
	}
	return desired
}

// sized is a pod with that much memory, and what another amount means to it.
func sized(t *testing.T, memory, policy string) *unstructured.Unstructured {
	return pod(t, "a", `{"containers":[{"name":"sandbox","resizePolicy":[{"resourceName":"cpu","restartPolicy":"NotRequired"},
		{"resourceName":"memory","restartPolicy":"`+policy+`"}],"resources":{"limits":{"memory":"`+memory+`"}}}]}`)
}

func TestUnchangedObjectsAreNotAsked(t *testing.T) {
	object := pod(t, "a", `{"image":"x","cpu":"1"}`)
	in := input(wanted(object), applied(t, object))
	if questions := in.Questions(); len(questions) != 0 {
		t.Errorf("asked: %v", questions)
	}
	if p := Make(in, nil); !p.Empty() || p.Unchanged != 1 {
		t.Errorf("got %+v", p)
	}
	in.Full = true
	if questions := in.Questions(); len(questions) != 1 {
		t.Error("a full plan asks about everything")
	}
}

func TestChanges(t *testing.T) {
	before := pod(t, "a", `{"image":"x","cpu":"1"}`)
	for _, test := range []struct {
		name    string
		desired *unstructured.Unstructured
		live    func(*unstructured.Unstructured)
		answer  func(desired *unstructured.Unstructured) Answer
		want    Change
	}{
		{
			name: "a value in place", desired: pod(t, "a", `{"image":"x","cpu":"2"}`),
			answer: func(d *unstructured.Unstructured) Answer { return Answer{Result: d, Resize: true} },
			want: Change{Action: Update, Disruption: None, Resize: true,
				Fields: []Field{{Path: ".spec.cpu", Old: "1", New: "2"}}},
		},
		{
			name: "an image", desired: pod(t, "a", `{"image":"y","cpu":"1"}`),
			answer: func(d *unstructured.Unstructured) Answer { return Answer{Result: d} },
			want: Change{Action: Update, Disruption: Restarts,
				Fields: []Field{{Path: ".spec.image", Old: "x", New: "y"}}},
		},
		{
			name: "memory that restarts the container", desired: sized(t, "2Gi", "RestartContainer"),
			live: func(live *unstructured.Unstructured) {
				live.Object["spec"] = sized(t, "1Gi", "RestartContainer").Object["spec"]
			},
			answer: func(d *unstructured.Unstructured) Answer { return Answer{Result: d, Resize: true} },
			want: Change{Action: Update, Disruption: Restarts, Resize: true,
				Fields: []Field{{Path: ".spec.containers[sandbox].resources.limits.memory", Old: "1Gi", New: "2Gi"}}},
		},
		{
			name: "memory that does not", desired: sized(t, "2Gi", "NotRequired"),
			live: func(live *unstructured.Unstructured) {
				live.Object["spec"] = sized(t, "1Gi", "NotRequired").Object["spec"]
			},
			answer: func(d *unstructured.Unstructured) Answer { return Answer{Result: d, Resize: true} },
			want: Change{Action: Update, Disruption: None, Resize: true,
				Fields: []Field{{Path: ".spec.containers[sandbox].resources.limits.memory", Old: "1Gi", New: "2Gi"}}},
		},
		{
			name: "a value that cannot change", desired: pod(t, "a", `{"image":"x"}`),
			answer: func(*unstructured.Unstructured) Answer { return Answer{Immutable: []string{"spec"}} },
			want: Change{Action: Replace, Disruption: Replaces, Reason: "it cannot be changed in place: spec",
				Fields: []Field{{Path: ".spec.cpu", Old: "1"}}},
		},
		{
			name: "a pod that was evicted", desired: before,
			live: func(live *unstructured.Unstructured) {
				live.Object["status"] = map[string]any{"phase": "Failed", "reason": "Evicted"}
			},
			answer: func(d *unstructured.Unstructured) Answer { return Answer{Result: d} },
			want:   Change{Action: Replace, Disruption: Replaces, Reason: "it has ended (Evicted)"},
		},
		{
			name: "fields of another manager", desired: pod(t, "a", `{"image":"y","cpu":"1"}`),
			answer: func(*unstructured.Unstructured) Answer {
				return Answer{Conflicts: []Conflict{{Manager: "vpa", Field: ".spec.cpu"}}}
			},
			want: Change{Action: Update, Disruption: Restarts, Conflicts: []Conflict{{Manager: "vpa", Field: ".spec.cpu"}},
				Fields: []Field{{Path: ".spec.image", Old: "x", New: "y"}}},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			live := applied(t, before)
			if test.live != nil {
				test.live(live)
			}
			in := input(wanted(test.desired), live)
			if len(in.Questions()) != 1 {
				t.Fatal("the server is not asked")
			}
			p := Make(in, map[Ref]Answer{RefOf(live): test.answer(test.desired)})
			if len(p.Changes) != 1 {
				t.Fatalf("got %d changes", len(p.Changes))
			}
			want := test.want
			want.Ref, want.Path, want.Desired = RefOf(live), "sandboxes.a", test.desired
			want.Labels = test.desired.GetLabels()
			want.UID, want.ResourceVersion, want.Seen = "uid-1", "7", Digest(live)
			if diff := cmp.Diff(want, p.Changes[0]); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if blocked := len(p.Blocked()) > 0; blocked != (len(want.Conflicts) > 0) {
				t.Errorf("blocked: %v", blocked)
			}
		})
	}
}

// TestDoubtThatTheServerDispels: what the proof could not show, but a dry run
// does, is unchanged.
func TestDoubtThatTheServerDispels(t *testing.T) {
	object := pod(t, "a", `{"image":"x","cpu":"1"}`)
	live := applied(t, object)
	unstructured.RemoveNestedField(live.Object, "metadata", "managedFields")
	p := Make(input(wanted(object), live), map[Ref]Answer{RefOf(live): {Result: live}})
	if !p.Empty() || p.Unchanged != 1 {
		t.Errorf("got %+v", p)
	}
}

func TestAdoption(t *testing.T) {
	object := pod(t, "a", `{"image":"x"}`)
	existing := object.DeepCopy()
	existing.SetLabels(nil)
	existing.SetUID("theirs")
	p := Make(input(wanted(object)), map[Ref]Answer{RefOf(object): {Result: object, Existing: existing, Problem: errors.New("no")}})
	if len(p.Blocked()) != 1 || p.Changes[0].Action != Adopt || p.Changes[0].UID != "theirs" {
		t.Errorf("somebody's object: got %+v", p.Changes)
	}
	// A LIST can lag behind: an object that is ours already is no adoption.
	p = Make(input(wanted(object)), map[Ref]Answer{RefOf(object): {Result: object, Existing: object}})
	if !p.Empty() {
		t.Errorf("our own object: got %+v", p.Changes)
	}
}

func TestPrune(t *testing.T) {
	volume := func(name, retain string) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: parse(t, `{"apiVersion":"v1","kind":"PersistentVolumeClaim",
			"metadata":{"name":"`+name+`","namespace":"n","labels":{"agentpane.io/retain":"`+retain+`"}}}`)}
	}
	namespace := &unstructured.Unstructured{Object: parse(t, `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"n"}}`)}
	staying := pod(t, "staying", `{"image":"x","cpu":"1"}`)
	live := []*unstructured.Unstructured{
		applied(t, staying), applied(t, pod(t, "gone", `{}`)), volume("kept", "true"), volume("disk", "false"), namespace,
	}
	for _, test := range []struct {
		name          string
		desired       []render.Object
		prune         Prune
		deleted, kept []string
	}{
		{"a sandbox", wanted(staying), Prune{}, []string{"gone", "disk"}, []string{"n", "kept"}},
		{"with its retained workspace", wanted(staying), Prune{Retained: true}, []string{"gone", "disk", "kept"}, []string{"n"}},
		{"an empty file", nil, Prune{}, nil, []string{"n", "kept", "disk", "gone", "staying"}},
		{"an empty file, on purpose", nil, Prune{All: true}, []string{"gone", "staying", "disk"}, []string{"n", "kept"}},
		{"destroy", nil, Prune{All: true, Retained: true, Namespace: true}, []string{"gone", "staying", "disk", "kept", "n"}, nil},
		{"destroy but the data", nil, Prune{All: true, Retained: true, KeepVolumes: true}, []string{"gone", "staying"}, []string{"n", "kept", "disk"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := input(test.desired, live...)
			in.Prune = test.prune
			p := Make(in, nil)
			var deleted, kept []string
			for _, change := range p.Changes {
				if change.Action != Delete || (change.Ref.Kind == "Pod") != (change.Disruption == Ends) {
					t.Errorf("%s: %s, %s", change.Ref, change.Action, change.Disruption)
				}
				deleted = append(deleted, change.Ref.Name)
			}
			for _, k := range p.Kept {
				kept = append(kept, k.Ref.Name)
			}
			slices.Sort(kept)
			slices.Sort(test.kept)
			if diff := cmp.Diff(test.kept, kept); diff != "" {
				t.Errorf("kept: -want +got\n%s", diff)
			}
			// Pods go before their volumes, the namespace last.
			if len(deleted) > 0 && deleted[len(deleted)-1] != test.deleted[len(test.deleted)-1] {
				t.Errorf("deleted in the order %v", deleted)
			}
			slices.Sort(deleted)
			slices.Sort(test.deleted)
			if diff := cmp.Diff(test.deleted, deleted); diff != "" {
				t.Errorf("deleted: -want +got\n%s", diff)
			}
		})
	}
}

// TestSourceHasWhatApplyGoesBy: a saved plan is applied as its file says.
func TestSourceHasWhatApplyGoesBy(t *testing.T) {
	fleets, found := schema.Load([]string{"-"}, strings.NewReader(`
apiVersion: agentpane.io/v1alpha1
kind: SandboxFleet
name: f
namespace: n
cluster: {context: other}
podSecurity: baseline
egress: {unenforced: allow, mode: cilium, image: "example.org/gateway:1"}
limits: {min: {cpu: 200m}}
sandboxes: {a: {image: "i:1"}, b: {image: "i:1", state: stopped}}
`))
	if found.HasErrors() {
		t.Fatal(found)
	}
	file, saved := fleets[0], SourceOf(fleets[0], "c").Fleet(Plan{Fleet: "f", Namespace: "n"})
	if saved.Name != file.Name || saved.Namespace != file.Namespace || saved.Cluster != file.Cluster || saved.PodSecurity != file.PodSecurity ||
		saved.Egress.Unenforced != file.Egress.Unenforced || saved.Egress.Mode != schema.Cilium || saved.Egress.Image != file.Egress.Image {
		t.Errorf("got %+v", saved)
	}
	if diff := cmp.Diff(file.Limits, saved.Limits); diff != "" {
		t.Errorf("limits: -file +saved\n%s", diff)
	}
	if b, _ := saved.Sandbox("b"); b.State != schema.Stopped {
		t.Errorf("its sandboxes are %+v", saved.Sandboxes)
	}
}

// TestSavedPlanIsThePlan: what is saved and opened again is the same plan, down
// to the kinds of its numbers.
func TestSavedPlanIsThePlan(t *testing.T) {
	object := pod(t, "a", `{"image":"x","cpu":2,"ports":[{"port":80}],"share":0.5}`)
	gone := applied(t, pod(t, "gone", `{}`))
	p := Make(input(wanted(object), gone), map[Ref]Answer{RefOf(object): {Result: object}})
	source := Source{
		Cluster: "c", Connection: schema.Cluster{Context: "x"}, PodSecurity: schema.Baseline, Unenforced: schema.Allow, GatewayImage: "i:1",
		Limits: schema.Limits{Min: schema.Amounts{CPU: resource.MustParse("100m")}}, Stopped: []string{"b"},
	}
	content, err := p.Save(source)
	if err != nil {
		t.Fatal(err)
	}
	opened, openedSource, err := Open(content)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p, opened); diff != "" {
		t.Errorf("-saved +opened\n%s", diff)
	}
	if diff := cmp.Diff(source, openedSource); diff != "" {
		t.Errorf("its source: -saved +opened\n%s", diff)
	}
	printed, err := utiljson.Marshal(p.Document())
	if err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"", "x", "{}", `{"formatVersion":"2"}`, string(printed)} {
		if _, _, err := Open([]byte(content)); err == nil {
			t.Errorf("%.40q was opened as a saved plan", content)
		}
	}
}
