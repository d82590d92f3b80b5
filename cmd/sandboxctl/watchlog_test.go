package main

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/reconcile/session"
	"github.com/agentpane/sandboxctl/reconcile/watch"
)

// colour is what the program's own writer takes away where no terminal is.
var colour = regexp.MustCompile("\x1b\\[[0-9;]*m")

// TestWatchLogIsPlainText: a sandbox's own words cannot steer a terminal.
func TestWatchLogIsPlainText(t *testing.T) {
	const hostile = "\x1b[2J\u202e"
	for _, event := range []watch.Event{
		{Type: watch.SessionChanged, Scope: "a", Session: session.Change{Action: session.Update, Reason: hostile}},
		{Type: watch.SessionDrift, Scope: "a", Session: session.Change{Action: session.Update, Reason: hostile}},
		{Type: watch.Flapping, Message: hostile},
		{Type: watch.Failed, Err: errors.New(hostile)},
	} {
		var out strings.Builder
		log := newWatchLog(environment{stderr: &out, now: func() time.Time { return time.Time{} }}, logHuman)
		log.event(event)
		text := colour.ReplaceAllString(out.String(), "")
		if !strings.Contains(text, "\uFFFD[2J\uFFFD") || strings.ContainsAny(text, "\x1b\u202e") {
			t.Errorf("%s: %q", event.Type, text)
		}
	}
}

// TestWatchLogNamesTheSandbox, which the name of a pod does not.
func TestWatchLogNamesTheSandbox(t *testing.T) {
	ref := plan.Ref{GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Pod"), Name: "agentpane-hello-1"}
	for want, event := range map[string]watch.Event{
		"pod agentpane-hello-1 (sandbox builder) created":                              {Type: watch.Changed, Scope: "builder", Ref: ref, Action: plan.Create},
		"pod agentpane-hello-1 is ready":                                               {Type: watch.Ready, Ref: ref},
		"pod agentpane-hello-1 of pool p was claimed by run-1, warm, in 1s":            {Type: watch.Claimed, Scope: "run-1", Ref: ref, Pool: "p", Message: "warm", Took: time.Second},
		"pod agentpane-hello-1 (sandbox builder) is not to be there: it is in no file": {Type: watch.Drift, Scope: "builder", Ref: ref, Action: plan.Delete, Message: "it is in no file"},
	} {
		if got := eventText(event); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
