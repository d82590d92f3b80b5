package main

import (
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentpane/sandboxctl/reconcile"
	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/render"
)

// TestDeletionsNameTheirSandbox: a pod's name has only its project, and the file
// has no line any more that would tell more.
func TestDeletionsNameTheirSandbox(t *testing.T) {
	fleet := rendered{Fleet: loadFleet(t, "  a: {template: t}\n")}
	change := plan.Change{
		Ref: plan.Ref{Name: "agentpane-hello-1"}, Action: plan.Delete, Disruption: plan.Ends, Reason: "it is no longer in the file",
		Labels: map[string]string{render.SandboxIDLabel: "builder"},
	}
	change.Ref.Kind = "Pod"
	p := planned{position: fleet.position, Plan: plan.Plan{Fleet: "f", Namespace: "n", Changes: []plan.Change{change}}}
	for name, test := range map[string]struct {
		view func(io.Writer, planned)
		want string
	}{
		"text": {printPlan, "  - pod agentpane-hello-1 (sandbox builder) will be deleted: it is no longer in the file; ends every process and tmux session in it\n"},
		"markdown": {printPlanMarkdown,
			"| `-` | `pod agentpane-hello-1 (sandbox builder)` | will be deleted: it is no longer in the file; ends every process and tmux session in it |  |\n"},
		"github": {printPlanGitHub,
			"::warning title=sandboxctl::pod agentpane-hello-1 (sandbox builder) will be deleted: it is no longer in the file; ends every process and tmux session in it\n"},
	} {
		var out strings.Builder
		test.view(&out, p)
		if text := colour.ReplaceAllString(out.String(), ""); !strings.Contains(text, test.want) {
			t.Errorf("%s: want %q in\n%s", name, test.want, text)
		}
	}
	content, err := json.Marshal(p.Document())
	if err != nil || !strings.Contains(string(content), `"name":"agentpane-hello-1","sandbox":"builder"`) {
		t.Errorf("JSON: %s, %v", content, err)
	}

	var out strings.Builder
	progress := newApplyProgress(environment{stderr: &out, now: func() time.Time { return time.Time{} }})
	for _, event := range []reconcile.Event{
		{Phase: reconcile.Started}, {Phase: reconcile.Done}, {Phase: reconcile.Waiting, Message: "PodInitializing"}, {Phase: reconcile.Ready},
		{Phase: reconcile.Failed, Err: failure.New(failure.PodNotRunning, failure.Object{}, "no")},
		{Phase: reconcile.Failed, Err: failure.New(failure.PodStartupTimeout, failure.Object{}, "late")},
	} {
		event.Change = change
		progress.tell(event)
	}
	const want = `  pod agentpane-hello-1 (sandbox builder) deleted
  pod agentpane-hello-1 (sandbox builder): PodInitializing
  pod agentpane-hello-1 (sandbox builder) ready (0.0s)
  pod agentpane-hello-1 (sandbox builder) failed
  pod agentpane-hello-1 (sandbox builder) not ready in time
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("progress (-want +got):\n%s", diff)
	}
}
