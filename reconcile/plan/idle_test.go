package plan_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// idleFleet is a fleet with a sandbox that stops after 30 minutes.
func idleFleet(t *testing.T, more string) (*schema.Fleet, []render.Object) {
	t.Helper()
	text := `
apiVersion: agentpane.io/v1alpha1
kind: SandboxFleet
name: team
sandboxes:
  api: {image: "example/image:1", idle: {after: 30m, action: stop}` + more + `}
  web: {image: "example/image:1"}
`
	fleets, found := schema.Load([]string{"-"}, strings.NewReader(text))
	if len(found) > 0 {
		t.Fatal(found)
	}
	objects, found := render.Objects(fleets[0])
	if len(found) > 0 {
		t.Fatal(found)
	}
	return fleets[0], objects
}

// podOf is the sandbox's pod, as it has run since begun.
func podOf(t *testing.T, objects []render.Object, sandbox string, begun time.Time, annotations map[string]string) *unstructured.Unstructured {
	t.Helper()
	for _, object := range objects {
		if object.Object.GetKind() != "Pod" || object.Object.GetLabels()[render.SandboxIDLabel] != sandbox {
			continue
		}
		pod := object.Object.DeepCopy()
		pod.SetUID("uid-of-pod")
		pod.SetResourceVersion("7")
		pod.SetAnnotations(annotations)
		stamp := begun.UTC().Format(time.RFC3339)
		pod.Object["metadata"].(map[string]any)["creationTimestamp"] = stamp
		pod.Object["status"] = map[string]any{"phase": "Running", "containerStatuses": []any{map[string]any{
			"name": render.ContainerName, "containerID": "c1", "restartCount": int64(0),
			"state": map[string]any{"running": map[string]any{"startedAt": stamp}},
		}}}
		return pod
	}
	t.Fatalf("no pod of %s", sandbox)
	return nil
}

func TestIdle(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	ago := func(minutes int) time.Time { return now.Add(-time.Duration(minutes) * time.Minute) }
	used := func(minutes int) map[string]string {
		return map[string]string{render.ActivityAnnotation: ago(minutes).Format(time.RFC3339)}
	}
	for name, test := range map[string]struct {
		begun       time.Time
		annotations map[string]string
		start       []string
		answer      plan.IdleAnswer
		asked       bool
		stops       string // the reason; empty when it goes on to run
		noted       time.Time
		next        time.Time
	}{
		"young":            {begun: ago(29), next: ago(-1)},
		"used":             {begun: ago(90), annotations: used(5), next: ago(-25)},
		"claimed lately":   {begun: ago(90), annotations: map[string]string{render.ClaimedAtAnnotation: ago(3).Format(time.RFC3339Nano)}, next: ago(-27)},
		"idle":             {begun: ago(31), asked: true, stops: "idle for 31m: stopped"},
		"used long ago":    {begun: ago(90), annotations: used(45), asked: true, stops: "idle for 45m: stopped"},
		"unreadable note":  {begun: ago(31), annotations: map[string]string{render.ActivityAnnotation: "\x1b"}, asked: true, stops: "idle for 31m: stopped"},
		"just now due":     {begun: ago(30), asked: true, stops: "idle for 30m: stopped"},
		"attached":         {begun: ago(90), asked: true, answer: plan.IdleAnswer{At: now}, noted: now, next: ago(-30)},
		"tmux printed":     {begun: ago(90), asked: true, answer: plan.IdleAnswer{At: ago(10)}, noted: ago(10), next: ago(-20)},
		"tmux is quiet":    {begun: ago(90), asked: true, answer: plan.IdleAnswer{At: ago(40)}, stops: "idle for 40m: stopped"},
		"a clock of lies":  {begun: ago(90), asked: true, answer: plan.IdleAnswer{At: ago(-1e6)}, noted: now, next: ago(-30)},
		"cannot be looked": {begun: ago(90), asked: true, answer: plan.IdleAnswer{Problem: errors.New("no")}, next: ago(-1)},
		"asked for":        {begun: ago(90), start: []string{"api"}, noted: now, next: ago(-30)},
	} {
		t.Run(name, func(t *testing.T) {
			fleet, objects := idleFleet(t, "")
			pod := podOf(t, objects, "api", test.begun, test.annotations)
			in := plan.IdleInput{Fleet: fleet, Now: now, Start: test.start, Live: live(pod)}
			questions := in.Questions()
			if asked := len(questions) == 1; asked != test.asked || asked && questions[0].Sandbox != "api" {
				t.Fatalf("asked %v, want %v", questions, test.asked)
			}
			answers := map[string]plan.IdleAnswer{}
			if test.asked {
				answers["api"] = test.answer
			}
			idle := in.Decide(answers)
			p := plan.Make(plan.Input{Fleet: "team", Namespace: fleet.Namespace, Desired: idle.On(objects), Live: in.Live, Idle: idle, Sandboxes: 2}, nil)
			stops := ""
			for _, change := range p.Changes {
				if change.Ref == plan.RefOf(pod) {
					stops = change.Reason
					if change.Action != plan.Delete || change.Disruption != plan.Ends || !change.Idling() {
						t.Errorf("the pod: %+v", change)
					}
				}
			}
			if stops != test.stops {
				t.Errorf("stops %q, want %q", stops, test.stops)
			}
			var noted, next time.Time
			for _, active := range p.Active {
				noted = active.At
			}
			if test.stops == "" {
				next = in.Next(p.Active)
			}
			if !noted.Equal(test.noted) || !next.Equal(test.next) {
				t.Errorf("noted %s, next %s; want %s, %s", noted, next, test.noted, test.next)
			}
		})
	}
}

// TestIdleRecord: a sandbox that was stopped stays so until somebody asks for it.
func TestIdleRecord(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	begun := now.Add(-time.Hour)
	fleet, objects := idleFleet(t, "")
	pod := podOf(t, objects, "api", begun, nil)
	idle := plan.IdleInput{Fleet: fleet, Live: live(pod), Now: now}.Decide(map[string]plan.IdleAnswer{"api": {}})
	var record *unstructured.Unstructured
	for _, object := range idle.On(nil) {
		record = object.Object
	}
	if record == nil {
		t.Fatal("nothing is written down")
	}
	another := pod.DeepCopy()
	another.SetUID("another")
	stopping := pod.DeepCopy()
	inUse := pod.DeepCopy()
	inUse.SetAnnotations(map[string]string{render.ActivityAnnotation: now.Format(time.RFC3339)})
	spoilt := record.DeepCopy()
	spoilt.Object["data"] = map[string]any{"pod": "uid-of-pod", "since": "now"}
	for name, test := range map[string]struct {
		more  string
		live  []*unstructured.Unstructured
		start []string
		// pod: the sandbox is to have one. podGoes, recordGoes: that is deleted.
		pod, podGoes, recordGoes bool
	}{
		"stopped":                 {live: []*unstructured.Unstructured{record}},
		"the stop was cut off":    {live: []*unstructured.Unstructured{record, stopping}, podGoes: true},
		"used before the pod was": {live: []*unstructured.Unstructured{record, inUse}, pod: true, recordGoes: true},
		"started anew":            {live: []*unstructured.Unstructured{record, another}, pod: true, recordGoes: true},
		"asked for":               {live: []*unstructured.Unstructured{record}, start: []string{"api"}, pod: true, recordGoes: true},
		"another entry":           {more: ", env: {A: b}", live: []*unstructured.Unstructured{record}, pod: true, recordGoes: true},
		"declared stopped":        {more: ", state: stopped", live: []*unstructured.Unstructured{record}, recordGoes: true},
		"the record is spoilt":    {live: []*unstructured.Unstructured{spoilt}, pod: true, recordGoes: true},
	} {
		t.Run(name, func(t *testing.T) {
			fleet, objects := idleFleet(t, test.more)
			in := plan.IdleInput{Fleet: fleet, Live: live(test.live...), Start: test.start, Now: begun.Add(10 * time.Minute)}
			if questions := in.Questions(); len(questions) > 0 {
				t.Errorf("asked: %v", questions)
			}
			idle := in.Decide(nil)
			wanted := idle.On(objects)
			if got := has(wanted, "api"); got != test.pod {
				t.Errorf("it is to have a pod: %t, want %t", got, test.pod)
			}
			if !has(wanted, "web") {
				t.Error("another sandbox has lost its pod")
			}
			p := plan.Make(plan.Input{Fleet: "team", Namespace: fleet.Namespace, Desired: wanted, Live: in.Live, Idle: idle, Sandboxes: 2}, nil)
			podGoes, recordGoes := false, false
			for _, change := range p.Changes {
				if change.Action == plan.Delete {
					podGoes = podGoes || change.Ref.Kind == "Pod"
					recordGoes = recordGoes || change.Ref.Kind == "ConfigMap"
				}
			}
			if podGoes != test.podGoes || recordGoes != test.recordGoes {
				t.Errorf("the pod goes: %t, the record goes: %t; want %t, %t", podGoes, recordGoes, test.podGoes, test.recordGoes)
			}
		})
	}
}

func has(objects []render.Object, sandbox string) bool {
	for _, object := range objects {
		if object.Object.GetKind() == "Pod" && object.Object.GetLabels()[render.SandboxIDLabel] == sandbox {
			return true
		}
	}
	return false
}

func live(objects ...*unstructured.Unstructured) map[plan.Ref]*unstructured.Unstructured {
	all := map[plan.Ref]*unstructured.Unstructured{}
	for _, object := range objects {
		all[plan.RefOf(object)] = object
	}
	return all
}
