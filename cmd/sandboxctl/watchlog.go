package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"charm.land/lipgloss/v2"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/reconcile/watch"
	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

// logFormat is the value of --log.
type logFormat string

const (
	logAuto  logFormat = "auto"
	logHuman logFormat = "human"
	logText  logFormat = "text"
	logJSON  logFormat = "json"
)

// watchLog tells what happens while watch runs: to people in lines on standard
// error, to programs by slog on standard output.
type watchLog struct {
	env        environment
	structured *slog.Logger // nil for people

	mutex   sync.Mutex // protects found and inForce, and the order of lines
	found   string     // what was last found in the files
	inForce bool       // there was a good file
}

func newWatchLog(env environment, format logFormat) *watchLog {
	log := &watchLog{env: env}
	options := &slog.HandlerOptions{ReplaceAttr: func(_ []string, attr slog.Attr) slog.Attr {
		if attr.Key == slog.TimeKey {
			attr.Value = slog.TimeValue(env.now())
		}
		return attr
	}}
	switch {
	case format == logJSON:
		log.structured = slog.New(slog.NewJSONHandler(env.stdout, options))
	case format == logText, format == logAuto && env.width == 0:
		log.structured = slog.New(slog.NewTextHandler(env.stdout, options))
	}
	return log
}

// findings tells what is wrong with the files; what lasts is told once.
func (l *watchLog) findings(found diagnostic.List) {
	var text strings.Builder
	for _, finding := range found {
		text.WriteString(diagnostic.Format(finding, diagnostic.Style{Color: l.structured == nil, Width: l.env.width}))
	}
	l.mutex.Lock()
	same := text.String() == l.found
	l.found = text.String()
	l.inForce = l.inForce || !found.HasErrors()
	inForce := l.inForce
	l.mutex.Unlock()
	if same {
		return
	}
	if l.structured == nil {
		l.line("the file was read")
		fmt.Fprint(l.env.stderr, text.String())
		if found.HasErrors() && inForce {
			l.line("nothing was changed: the last good file stays in force")
		}
		return
	}
	for _, finding := range found {
		level := slog.LevelWarn
		if finding.Severity == diagnostic.Error {
			level = slog.LevelError
		}
		var attrs []slog.Attr
		if file := finding.Subject.File; file != nil {
			attrs = append(attrs, slog.String("file", file.Name), slog.Int("line", finding.Subject.Start.Line), slog.Int("column", finding.Subject.Start.Column))
		}
		attrs = append(attrs, slog.String("path", finding.Path), slog.String("detail", finding.Detail))
		l.structured.LogAttrs(context.Background(), level, finding.Summary, attrs...)
	}
}

// note tells something about a fleet.
func (l *watchLog) note(fleet, text string) {
	if l.structured != nil {
		l.structured.Info(text, "fleet", fleet)
		return
	}
	l.line("fleet " + fleet + ": " + text)
}

// problem tells an error after which watch goes on.
func (l *watchLog) problem(err error) {
	for _, err := range splitErrors(err) {
		text, hint := errorText(err)
		if l.structured != nil {
			l.structured.Error(text, "code", string(failure.CodeOf(err)), "hint", hint)
			continue
		}
		l.signed(lipgloss.NewStyle().Foreground(lipgloss.Red).Render("!")+" ", text)
		if hint != "" {
			l.line("  " + hint)
		}
	}
}

// event tells what happened.
func (l *watchLog) event(event watch.Event) {
	if event.Type == watch.Reconciled || event.Type == watch.PoolSeen {
		return
	}
	if event.Err != nil && l.structured == nil {
		l.problem(event.Err)
		return
	}
	text := eventText(event)
	if l.structured == nil {
		l.line(text)
		return
	}
	level := slog.LevelInfo
	switch event.Type {
	case watch.NotReady, watch.Drift, watch.SessionDrift, watch.PoolDrift, watch.Flapping, watch.Waiting:
		level = slog.LevelWarn
	case watch.Failed, watch.Unreachable:
		level = slog.LevelError
	}
	attrs := []slog.Attr{slog.String("event", string(event.Type)), slog.String("fleet", event.Fleet)}
	if event.Scope != "" {
		attrs = append(attrs, slog.String("sandbox", event.Scope))
	}
	if event.Pool != "" {
		attrs = append(attrs, slog.String("pool", event.Pool))
	}
	if event.Ref.Name != "" {
		attrs = append(attrs, slog.String("kind", event.Ref.Kind), slog.String("name", event.Ref.Name))
	}
	if event.Action != "" {
		attrs = append(attrs, slog.String("action", string(event.Action)))
	}
	if event.Err != nil {
		message, hint := errorText(event.Err)
		text = message
		attrs = append(attrs, slog.String("code", string(failure.CodeOf(event.Err))), slog.String("hint", hint))
	}
	l.structured.LogAttrs(context.Background(), level, text, attrs...)
}

// eventText is an event as people read it.
func eventText(event watch.Event) string {
	about := event.Ref.Of(event.Scope)
	reason := ""
	if event.Message != "" {
		reason = ": " + shortLine(event.Message)
	}
	switch event.Type {
	case watch.Changed:
		return about + " " + pastOf(event.Action) + reason
	case watch.Ready:
		return about + " is ready"
	case watch.NotReady:
		return about + " is not ready" + reason
	case watch.Drift:
		return about + " " + driftText(event.Action) + reason
	case watch.PoolChanged:
		return "pool " + event.Pool + ": " + event.Message
	case watch.Claimed:
		return fmt.Sprintf("%s of pool %s was claimed by %s, %s, in %s", event.Ref, event.Pool, event.Scope, event.Message, event.Took)
	case watch.PoolDrift:
		return "pool " + event.Pool + " is not at its level: " + event.Message
	case watch.SessionChanged:
		return because(sessionName(event.Scope, event.Session)+" "+pastOf(plan.Action(event.Session.Action)), event.Session.Reason)
	case watch.SessionDrift:
		return because(sessionName(event.Scope, event.Session)+" "+driftText(plan.Action(event.Session.Action)), event.Session.Reason)
	case watch.Flapping:
		return fmt.Sprintf("%s is changed back again and again by %s; it is left alone for %s", about, event.Message, event.Took)
	case watch.Settled:
		if event.Left > 0 {
			return fmt.Sprintf("fleet %s is as the file says (%s), but for what is left alone", event.Fleet, count(event.Count, "object"))
		}
		return fmt.Sprintf("fleet %s is as the file says (%s)", event.Fleet, count(event.Count, "object"))
	}
	return strings.TrimSpace(about + " " + string(event.Type) + reason)
}

// driftText says how an object differs from what the file says, by what would
// mend it.
func driftText(action plan.Action) string {
	switch action {
	case plan.Create:
		return "is missing"
	case plan.Delete:
		return "is not to be there"
	}
	return "is not as the file says"
}

// line prints a line with the time. What it tells may be a stranger's words.
func (l *watchLog) line(text string) { l.signed("", text) }

// signed is line behind a sign of our own.
func (l *watchLog) signed(sign, text string) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	fmt.Fprintf(l.env.stderr, "%s %s%s\n", l.env.now().Format("15:04:05"), sign, printable(text))
}
