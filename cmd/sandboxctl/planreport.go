package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

// printPlanMarkdown prints a plan as a comment on a pull request.
func printPlanMarkdown(out io.Writer, p planned) {
	fmt.Fprintf(out, "### sandboxctl: fleet `%s`\n\n", p.Fleet)
	if p.Empty() {
		fmt.Fprintf(out, "No changes: the cluster is as the file says (%s).\n", count(p.Unchanged, "object"))
		return
	}
	fmt.Fprintf(out, "%s Namespace `%s`, context `%s`.\n\n", summaryLine(p.Plan), p.Namespace, p.context)
	fmt.Fprintf(out, "| | object | what happens | from |\n|---|---|---|---|\n")
	for _, change := range p.Changes {
		what := because(markOf(change).verb, change.Reason, loss(change.Disruption), problemText(change))
		fmt.Fprintf(out, "| `%s` | `%s` | %s | %s |\n", markOf(change).sign, change, markdownCell(printable(what)), codeCell(change.Path))
	}
	for _, sessions := range p.Sessions {
		for _, line := range sessionLines(sessions) {
			what := strings.Join(append([]string{line.what}, line.detail...), "; ")
			fmt.Fprintf(out, "| `%s` | %s | %s | %s |\n", line.sign, codeCell(line.name), codeCell(what), codeCell(line.path))
		}
	}
	for _, level := range p.Pools {
		what := because(levelText(level), append(level.Reasons(), levelProblem(level))...)
		fmt.Fprintf(out, "| `~` | `pool %s` | %s | `%s` |\n", level.Name, markdownCell(printable(what)), level.Path)
	}
	fmt.Fprintf(out, "\n<details><summary>Fields</summary>\n\n```diff\n")
	for _, change := range p.Changes {
		if len(change.Fields) == 0 {
			continue
		}
		fmt.Fprintf(out, "@@ %s @@\n", change)
		for _, field := range change.Fields {
			// A diff knows no "~": a changed value is one that goes and one that comes.
			if field.Old != nil {
				fmt.Fprintln(out, printable("- "+field.Path+" = "+valueText(field.Old)))
			}
			if field.New != nil {
				fmt.Fprintln(out, printable("+ "+field.Path+" = "+valueText(field.New)))
			}
		}
	}
	fmt.Fprintf(out, "```\n\n</details>\n")
}

// codeCell is a cell in which nothing is taken for Markdown: what a sandbox says of
// its sessions may be meant to be. It is empty for what is.
func codeCell(text string) string {
	if text == "" {
		return ""
	}
	return "`" + strings.ReplaceAll(markdownCell(printable(text)), "`", "'") + "`"
}

func markdownCell(text string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ").Replace(text)
}

// problemText says why a change cannot be made; empty when it can.
func problemText(change plan.Change) string {
	switch {
	case change.Problem != nil:
		return "cannot be done: " + change.Problem.Error()
	case change.Blocked():
		var fields []string
		for _, conflict := range change.Conflicts {
			fields = append(fields, conflict.Field+" is owned by "+conflict.Manager)
		}
		return "cannot be done: " + strings.Join(fields, ", ")
	}
	return ""
}

// levelProblem says why a pool cannot have its level; empty when it can.
func levelProblem(level plan.PoolLevel) string {
	for _, change := range level.Changes {
		if problem := problemText(change); problem != "" {
			return problem
		}
	}
	return ""
}

// printPlanGitHub prints a plan as workflow commands, which GitHub shows at the
// lines of the file that made the objects.
func printPlanGitHub(out io.Writer, p planned) {
	for _, change := range p.Changes {
		cost, problem := loss(change.Disruption), problemText(change)
		level, message := "notice", change.String()+" "+because(markOf(change).verb, change.Reason, cost)
		switch {
		case problem != "":
			level, message = "error", change.String()+" "+problem
		case cost != "":
			level = "warning"
		}
		printAnnotation(out, level, p.at(change.Path), message)
	}
	for _, sessions := range p.Sessions {
		for _, line := range sessionLines(sessions) {
			level := "notice"
			switch {
			case line.problem:
				level = "error"
			case line.ends:
				level = "warning"
			}
			printAnnotation(out, level, p.at(line.path), line.name+" "+line.what)
		}
	}
	for _, level := range p.Pools {
		severity, problem := "notice", levelProblem(level)
		if problem != "" {
			severity = "error"
		}
		printAnnotation(out, severity, p.at(level.Path), because(levelText(level), problem))
	}
	fmt.Fprintln(out, summaryLine(p.Plan))
}

// at is where the file has what the path leads to; nowhere for what is in none.
func (p planned) at(path string) diagnostic.Range {
	if path == "" {
		return diagnostic.Range{}
	}
	return p.position(path)
}

// printAnnotation prints a message at a line of a file.
func printAnnotation(out io.Writer, level string, at diagnostic.Range, message string) {
	where := ""
	if at.File != nil {
		where = fmt.Sprintf("file=%s,line=%d,col=%d,", escapeProperty(at.File.Name), at.Start.Line, at.Start.Column)
	}
	fmt.Fprintf(out, "::%s %stitle=sandboxctl::%s\n", level, where, escapeCommand(printable(message)))
}

// escapeCommand and escapeProperty keep a text from ending a workflow command
// or starting another.
func escapeCommand(text string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(text)
}

func escapeProperty(text string) string {
	return strings.NewReplacer(":", "%3A", ",", "%2C").Replace(escapeCommand(text))
}
