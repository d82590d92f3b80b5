package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentpane/sandboxctl/reconcile"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/reconcile/session"
)

// TestConfirm: only "yes" does, and an interrupt ends the question.
func TestConfirm(t *testing.T) {
	interrupted, interrupt := context.WithCancel(t.Context())
	interrupt()
	silent, writer := io.Pipe() // nobody types
	t.Cleanup(func() { _ = writer.Close() })
	for name, test := range map[string]struct {
		ctx   context.Context
		input io.Reader
		fails string
	}{
		"yes":         {t.Context(), strings.NewReader("yes\n"), ""},
		"no":          {t.Context(), strings.NewReader("y\n"), "not confirmed; nothing of fleet f was changed"},
		"nothing":     {t.Context(), strings.NewReader(""), "not confirmed; nothing of fleet f was changed"},
		"interrupted": {interrupted, silent, "interrupted; nothing of fleet f was changed"},
	} {
		env := environment{stdin: test.input, stderr: io.Discard, interactive: true}
		if err := confirm(test.ctx, env, "Apply these changes?", "f"); !failsWith(err, test.fails) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestApplyCountsPools: what pools have got is counted, and what they have not
// got as apply was interrupted is named.
func TestApplyCountsPools(t *testing.T) {
	change := func(name string, action plan.Action) plan.Change {
		return plan.Change{Ref: plan.Ref{Name: name}, Action: action}
	}
	levels := []plan.PoolLevel{
		{Name: "done", Changes: []plan.Change{change("a", plan.Create)}},
		{Name: "half", Changes: []plan.Change{change("b", plan.Create), change("c", plan.Create), change("d", plan.Delete)}},
	}
	made := applyResult{Result: reconcile.Result{Pooled: []plan.Change{levels[0].Changes[0], levels[1].Changes[0]}}}
	made.poolsLeft = levelsLeft(levels, made.Pooled)
	var out strings.Builder
	env := environment{stdout: &out, now: func() time.Time { return time.Time{} }}
	if err := newApplyProgress(env).finish("f", made, context.Canceled); !failsWith(err, "interrupted: ") {
		t.Error(err)
	}
	const want = "Fleet f: 2 changes made in 0.0s.\n  not done: pool half: 1 to make, 1 to delete\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestPlanIsPlainText: what a server or a sandbox has said cannot steer a
// terminal, in any view.
func TestPlanIsPlainText(t *testing.T) {
	const hostile = "\x1b[2J\u009b31m\u202e"
	fleet := rendered{Fleet: loadFleet(t, "  a: {template: t}\n")}
	p := planned{position: fleet.position, Plan: plan.Plan{Fleet: "f", Changes: []plan.Change{{
		Ref: plan.Ref{Name: "a"}, Action: plan.Replace, Path: "sandboxes.a", Reason: "reason " + hostile, Unvalidated: "unvalidated " + hostile,
		Problem: errors.New("problem " + hostile), Conflicts: []plan.Conflict{{Manager: "manager " + hostile, Field: ".spec.x"}},
		Fields: []plan.Field{{Path: ".spec.x", Old: "old \u009b", New: "new \u202e"}},
	}}, Pools: []plan.PoolLevel{{Name: "p", Path: "pools.p", Changes: []plan.Change{
		{Action: plan.Delete, Reason: "pooled " + hostile, Problem: errors.New("refused " + hostile)}}}}}}
	for name, view := range map[string]func(io.Writer, planned){"text": printPlan, "markdown": printPlanMarkdown, "github": printPlanGitHub} {
		var out strings.Builder
		view(&out, p)
		text := colour.ReplaceAllString(out.String(), "")
		if !strings.Contains(text, "problem \uFFFD[2J") || !strings.Contains(text, "refused \uFFFD[2J") || strings.ContainsAny(text, "\x1b\u009b\u202e") {
			t.Errorf("%s: %q", name, text)
		}
	}
}

// TestSessionsAreNoMarkdown: what a sandbox says of what runs in it cannot put a
// link, a mention or a column into a comment.
func TestSessionsAreNoMarkdown(t *testing.T) {
	fleet := rendered{Fleet: loadFleet(t, "  a: {template: t}\n")}
	p := planned{position: fleet.position, Plan: plan.Plan{Fleet: "f", Sessions: []plan.Sessions{{Sandbox: "a", Changes: []session.Change{
		{Action: session.Delete, Kind: session.WindowKind, Name: "s:`@all`", Ends: []string{"`[x](https://example.org) | @all"}},
	}}}}}
	var out strings.Builder
	printPlanMarkdown(&out, p)
	want := "| `-` | `window a/s:'@all'` | `will be ended: ends: '[x](https://example.org) \\| @all` |"
	if !strings.Contains(out.String(), want) {
		t.Errorf("want %s in\n%s", want, out.String())
	}
}
