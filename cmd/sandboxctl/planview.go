package main

import (
	"encoding/json"
	"fmt"
	"image/color"
	"io"
	"strings"

	"charm.land/lipgloss/v2"

	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

// planned is a plan with what the views need to know beside it.
type planned struct {
	plan.Plan
	// context is the kubeconfig context that the plan is for.
	context string
	// position is where the file says what the path leads to.
	position func(path string) diagnostic.Range
	// poolPods: the pods of pools are shown one by one.
	poolPods bool
	// suspended is what watch would leave as it is.
	suspended suspension
}

// mark is how an action is shown: OpenTofu's signs.
type mark struct {
	sign  string
	verb  string // what will happen
	style lipgloss.Style
}

func markOf(change plan.Change) mark {
	in := func(c color.Color) lipgloss.Style { return lipgloss.NewStyle().Foreground(c) }
	switch change.Action {
	case plan.Create:
		return mark{"+", "will be created", in(lipgloss.Green)}
	case plan.Adopt:
		return mark{"+", "is there, and will be adopted", in(lipgloss.Yellow)}
	case plan.Replace:
		return mark{"-/+", "must be replaced", in(lipgloss.Magenta)}
	case plan.Delete:
		return mark{"-", "will be deleted", in(lipgloss.Red)}
	}
	if change.Disruption == plan.Restarts {
		return mark{"~", "will be changed, which restarts its container", in(lipgloss.Yellow)}
	}
	return mark{"~", "will be changed in place", in(lipgloss.Yellow)}
}

// because is what happens with why it does, and what it brings.
func because(what string, more ...string) string {
	separator := ": "
	for _, text := range more {
		if text != "" {
			what, separator = what+separator+text, "; "
		}
	}
	return what
}

// loss says what a disruption costs those who work in the sandbox.
func loss(disruption plan.Disruption) string {
	switch disruption {
	case plan.Restarts, plan.Replaces, plan.Ends:
		return "ends every process and tmux session in it"
	}
	return ""
}

// printPlan prints a plan for people.
func printPlan(out io.Writer, p planned) {
	if p.Empty() {
		fmt.Fprintf(out, "Fleet %s: no changes. The cluster is as the file says (%s).\n", p.Fleet, count(p.Unchanged, "object"))
		printKept(out, p.Plan)
		printActive(out, p.Plan)
		return
	}
	fmt.Fprintf(out, "Fleet %s, namespace %s, context %s:\n\n", p.Fleet, p.Namespace, p.context)
	for _, change := range p.Changes {
		printChange(out, change, p.position)
	}
	for _, level := range p.Pools {
		printLevel(out, level, p)
	}
	printSessions(out, p)
	printKept(out, p.Plan)
	printActive(out, p.Plan)
	fmt.Fprintln(out, summaryLine(p.Plan))
}

// levelText is a pool's level in one line, without why pods go.
func levelText(level plan.PoolLevel) string {
	text := fmt.Sprintf("pool %s: %d → %d warm", level.Name, level.From, level.To)
	if level.From == level.To {
		text = fmt.Sprintf("pool %s: %d warm", level.Name, level.To)
	}
	return text + " (" + levelWork(level) + ")"
}

// levelWork is how many pods are made and go.
func levelWork(level plan.PoolLevel) string {
	var parts []string
	if n := level.Count(plan.Create); n > 0 {
		parts = append(parts, fmt.Sprintf("%d to make", n))
	}
	if n := level.Count(plan.Delete); n > 0 {
		parts = append(parts, fmt.Sprintf("%d to delete", n))
	}
	return strings.Join(parts, ", ")
}

func printLevel(out io.Writer, level plan.PoolLevel, p planned) {
	m := markOf(plan.Change{Action: plan.Update})
	fmt.Fprintf(out, "  %s %s\n", m.style.Render(m.sign), lipgloss.NewStyle().Bold(true).Render(levelText(level)))
	fmt.Fprintf(out, "      # %s (%s)\n", level.Path, p.position(level.Path))
	for _, reason := range level.Reasons() {
		fmt.Fprintf(out, "      - %s\n", printable(reason))
	}
	for _, change := range level.Changes {
		printJudgement(out, change)
	}
	if p.poolPods {
		for _, change := range level.Changes {
			m := markOf(change)
			fmt.Fprintf(out, "      %s %s %s\n", m.style.Render(m.sign), change, printable(because(m.verb, change.Reason)))
		}
	}
	fmt.Fprintln(out)
}

func printChange(out io.Writer, change plan.Change, position func(string) diagnostic.Range) {
	m := markOf(change)
	what := printable(because(m.verb, change.Reason, loss(change.Disruption)))
	fmt.Fprintf(out, "  %s %s %s\n", m.style.Render(m.sign), lipgloss.NewStyle().Bold(true).Render(printable(change.String())), what)
	if change.Path != "" {
		fmt.Fprintf(out, "      # %s (%s)%s\n", change.Path, position(change.Path), verdict(change))
	}
	for _, field := range change.Fields {
		if change.Action != plan.Create || !isOwnershipLabel(field.Path) {
			fmt.Fprintf(out, "      %s\n", printable(fieldLine(field)))
		}
	}
	for _, conflict := range change.Conflicts {
		what := "is owned by"
		if change.Force {
			what = "is taken back from"
		}
		fmt.Fprintf(out, "      ! %s\n", printable(conflict.Field+" "+what+" "+conflict.Manager))
	}
	printJudgement(out, change)
	fmt.Fprintln(out)
}

// printJudgement prints why the server refuses a change, or was not asked.
func printJudgement(out io.Writer, change plan.Change) {
	if change.Unvalidated != "" {
		fmt.Fprintf(out, "      ? not validated by the server: %s\n", printable(change.Unvalidated))
	}
	if change.Problem != nil {
		fmt.Fprintf(out, "      ! cannot be done: %s\n", printable(change.Problem.Error()))
	}
}

// verdict is what Pod Security admission says to a pod.
func verdict(change plan.Change) string {
	if change.PodSecurity == "" {
		return ""
	}
	return "; passes Pod Security profile " + change.PodSecurity
}

// isOwnershipLabel: these are on every object that sandboxctl makes, and say
// nothing about a new one in particular.
func isOwnershipLabel(path string) bool {
	for _, label := range []string{render.ManagedLabel, render.FleetLabel, render.PartOfLabel} {
		if path == `.metadata.labels["`+label+`"]` {
			return true
		}
	}
	return false
}

func fieldLine(field plan.Field) string {
	switch {
	case field.Old == nil:
		return fmt.Sprintf("+ %s = %s", field.Path, valueText(field.New))
	case field.New == nil:
		return fmt.Sprintf("- %s = %s", field.Path, valueText(field.Old))
	}
	return fmt.Sprintf("~ %s = %s → %s", field.Path, valueText(field.Old), valueText(field.New))
}

// valueText is a value as JSON on one line, cut where it is very long: it may
// come from whoever can write to the cluster.
func valueText(value any) string {
	const longest = 200
	if text, ok := value.(string); ok && (text == plan.Masked || text == plan.MaskedChanged) {
		return text
	}
	var encoded strings.Builder
	encoder := json.NewEncoder(&encoded) // escapes control characters
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return printable(fmt.Sprint(value))
	}
	text := []rune(strings.TrimSpace(encoded.String()))
	if len(text) > longest {
		return string(text[:longest]) + "…"
	}
	return string(text)
}

func printKept(out io.Writer, p plan.Plan) {
	for _, kept := range p.Kept {
		fmt.Fprintf(out, "  = %s stays: %s\n", kept.Ref, kept.Reason)
	}
	if len(p.Kept) > 0 {
		fmt.Fprintln(out)
	}
}

// summaryLine counts what would happen; what would happen nowhere is left out.
func summaryLine(p plan.Plan) string {
	s := p.Summary()
	var parts []string
	for _, part := range []struct {
		n    int
		what string
	}{
		{s.Create, "to create"}, {s.Adopt, "to adopt"}, {s.Update, "to change"}, {s.Replace, "to replace"},
		{s.Delete, "to delete"}, {s.WarmCreate, "warm to make"}, {s.WarmDelete, "warm to delete"}, {s.Unchanged, "unchanged"},
	} {
		if part.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", part.n, part.what))
		}
	}
	parts = append(parts, sessionCount(s.Sessions)...)
	line := "Plan: " + strings.Join(parts, ", ") + "."
	if s.Sessions.Blocked > 0 {
		line += fmt.Sprintf(" %s cannot be had.", count(s.Sessions.Blocked, "session"))
	}
	if s.Blocked > 0 {
		line += fmt.Sprintf(" %s cannot be made as planned.", count(s.Blocked, "change"))
	}
	return line
}

// sessionCount counts what would happen to sessions, windows and panes.
func sessionCount(s plan.SessionSummary) []string {
	n := s.Create + s.Update + s.Delete
	if n == 0 {
		return nil
	}
	return []string{count(n, "change of tmux sessions", "changes of tmux sessions")}
}

// count is a number of things, as "1 object" or "2 objects"; a plural that is
// more than an "s" is given.
func count(n int, one string, many ...string) string {
	switch {
	case n == 1:
		return "1 " + one
	case len(many) > 0:
		return fmt.Sprintf("%d %s", n, many[0])
	}
	return fmt.Sprintf("%d %ss", n, one)
}
