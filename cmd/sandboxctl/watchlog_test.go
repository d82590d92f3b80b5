package main

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

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
