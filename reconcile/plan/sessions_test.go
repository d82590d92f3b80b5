package plan

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/reconcile/session"
	"github.com/agentpane/sandboxctl/schema"
)

// sandboxPod is a pod of sandbox api whose container runs, with that note.
func sandboxPod(t *testing.T, note string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: parse(t, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"n","uid":"u",
		"labels":{"agentpane.io/sandbox":"true","agentpane.io/sandbox-id":"api"},"annotations":{"agentpane.io/sessions":`+note+`}},
		"status":{"phase":"Running","containerStatuses":[{"name":"sandbox","containerID":"c","restartCount":1,"state":{"running":{}}}]}}`)}
}

func TestSessions(t *testing.T) {
	want := session.Desired{Sessions: []schema.Session{{Name: "agent", Windows: []schema.Window{{Name: "main", Panes: []schema.Pane{{}}}}}}}
	noted := func(container string, restarts int64) string {
		text := session.Note{Hash: want.Hash(), Container: session.Container{ID: container, Restarts: restarts}}.Text()
		encoded, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		return string(encoded)
	}
	for name, test := range map[string]struct {
		desired   session.Desired
		note      string
		full      bool
		disrupted Disruption
		stopped   bool // the container does not run
		asked     bool
		changes   int
		entries   int
	}{
		"as noted":                      {desired: want, note: noted("c", 1)},
		"as noted, and to be looked at": {desired: want, note: noted("c", 1), full: true, asked: true, changes: 1, entries: 1},
		"another life":                  {desired: want, note: noted("c", 0), asked: true, changes: 1, entries: 1},
		"another container":             {desired: want, note: noted("b", 1), asked: true, changes: 1, entries: 1},
		"nothing noted":                 {desired: want, note: `""`, asked: true, changes: 1, entries: 1},
		"nothing wanted":                {note: `""`},
		"nothing wanted any more":       {note: noted("c", 1), asked: true, entries: 1},
		"a pod that is replaced":        {desired: want, note: noted("c", 1), disrupted: Replaces, changes: 1, entries: 1},
		"a pod that goes":               {note: noted("c", 1), disrupted: Ends},
		"a container that starts":       {desired: want, note: noted("c", 1), stopped: true, changes: 1, entries: 1},
	} {
		t.Run(name, func(t *testing.T) {
			pod := sandboxPod(t, test.note)
			if test.stopped {
				unstructured.RemoveNestedField(pod.Object, "status", "containerStatuses")
			}
			in := Input{
				Full: test.full, Live: map[Ref]*unstructured.Unstructured{RefOf(pod): pod},
				Sessions: []SandboxSessions{{Sandbox: "api", Desired: test.desired}},
			}
			p := Plan{}
			if test.disrupted != "" {
				p.Changes = []Change{{Ref: RefOf(pod), Disruption: test.disrupted}}
			}
			answers := map[string]SessionAnswer{}
			for _, question := range in.SessionQuestions(p) {
				answers[question.Sandbox] = SessionAnswer{}
			}
			if asked := len(answers) == 1; asked != test.asked {
				t.Errorf("it is looked into: %v", asked)
			}
			in.AddSessions(&p, answers, time.Unix(0, 0))
			if len(p.Sessions) != test.entries || p.SessionChanges(session.Create) != test.changes {
				t.Errorf("got %+v", p.Sessions)
			}
			if test.disrupted == "" && p.Empty() != (test.changes == 0) {
				t.Errorf("the plan is empty: %v", p.Empty())
			}
			content, err := p.Save(Source{Cluster: "c"})
			if err != nil || test.disrupted != "" {
				return
			}
			opened, _, err := Open(content)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(p.Sessions, opened.Sessions); diff != "" {
				t.Errorf("-saved +opened\n%s", diff)
			}
		})
	}
}

// TestSessionsInTheWayOfASave: apply could not say of them what the plan says.
func TestSessionsInTheWayOfASave(t *testing.T) {
	for name, sessions := range map[string]Sessions{
		"a name that is taken": {Sandbox: "api", Blocked: []session.Blocked{{Session: "agent"}}},
		"no look into it":      {Sandbox: "api", Problem: errors.New("it has no tmux")},
	} {
		t.Run(name, func(t *testing.T) {
			if content, err := (Plan{Sessions: []Sessions{sessions}}).Save(Source{Cluster: "c"}); err == nil {
				t.Errorf("it was saved:\n%s", content)
			}
		})
	}
}

// TestNoteIsNoChange: what is noted down about sessions makes no plan stale.
func TestNoteIsNoChange(t *testing.T) {
	if Digest(sandboxPod(t, `"a"`)) != Digest(sandboxPod(t, `"b"`)) {
		t.Error("the note changes the digest")
	}
}
