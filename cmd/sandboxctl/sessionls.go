package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/agentpane/sandboxctl/reconcile/sandbox"
	"github.com/agentpane/sandboxctl/reconcile/session"
	"github.com/agentpane/sandboxctl/schema"
)

// sessionsInfo is the JSON of session ls.
type sessionsInfo struct {
	FormatVersion string        `json:"formatVersion"`
	Fleet         string        `json:"fleet"`
	Namespace     string        `json:"namespace"`
	Sessions      []sessionInfo `json:"sessions"`
}

// sessionInfo is a tmux session, as the sandbox itself reports it.
type sessionInfo struct {
	Name    string `json:"name"`
	Sandbox string `json:"sandbox"`
	// TaskID is the task of an agent's session; empty for another.
	TaskID string `json:"taskId"`
	// Declared tells whether the file has it, Present whether it is there, and
	// Managed whether it was made from the file.
	Declared bool `json:"declared"`
	Present  bool `json:"present"`
	Managed  bool `json:"managed"`
	Windows  int  `json:"windows"`
	// Attached is how many look at it.
	Attached int        `json:"attached"`
	Created  *time.Time `json:"created"`
	Activity *time.Time `json:"activity"`
	Panes    []paneInfo `json:"panes"`
}

// paneInfo is a pane; of a dead one ExitStatus or Signal says how its command
// has ended.
type paneInfo struct {
	Name       string     `json:"name"` // as SESSION:WINDOW.PANE
	Command    string     `json:"command"`
	Managed    bool       `json:"managed"`
	Dead       bool       `json:"dead"`
	ExitStatus *int       `json:"exitStatus"`
	Signal     string     `json:"signal"`
	Ended      *time.Time `json:"ended"`
	Restarts   int        `json:"restarts"`
	// LastLines are those of a dead pane; null where they were not asked for.
	LastLines []string `json:"lastLines"`

	id string
}

func newSessionLsCommand(env environment) *cobra.Command {
	var options sandboxFlags
	var output outputFormat
	cmd := &cobra.Command{
		Use:   "ls [SANDBOX...]",
		Short: "List the sessions of sandboxes",
		Long: `List the sessions of the sandboxes that are named, or of all that run: as the sandboxes
themselves report them, each by one look into it. What people made is listed as well.`,
		Example: `  sandboxctl session ls
  sandboxctl session ls api -o json | jq -r '.sessions[].name'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runSessionLs(cmd.Context(), env, options, args, output)
		},
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return options.names(cmd.Context(), env, ""), cobra.ShellCompDirectiveNoFileComp
		},
	}
	options.addOne(cmd, env)
	output.addFlag(cmd)
	return cmd
}

func runSessionLs(ctx context.Context, env environment, options sandboxFlags, names []string, output outputFormat) error {
	fleet, err := options.files.readOne(env)
	if err != nil {
		return err
	}
	client, _, err := options.clientOf(env, fleet)
	if err != nil {
		return err
	}
	pods, err := podsToLook(ctx, client, fleet, names)
	if err != nil {
		return err
	}
	found, err := readSessions(ctx, client, fleet, pods)
	if output == outputJSON {
		return errors.Join(printJSON(env.stdout, sessionsInfo{formatVersion, fleet.Name, fleet.Namespace, found}), err)
	}
	return errors.Join(printSessionTable(env.stdout, found, env.now()), err)
}

// podsToLook are the running pods of the named sandboxes, or of all.
func podsToLook(ctx context.Context, client *sandbox.Client, fleet *schema.Fleet, names []string) (map[string]*corev1.Pod, error) {
	pods := map[string]*corev1.Pod{}
	for _, name := range names {
		pod, err := client.FindRunning(ctx, name)
		if err != nil {
			return nil, err
		}
		pods[name] = pod
	}
	if len(names) > 0 {
		return pods, nil
	}
	all, err := client.Pods(ctx)
	for name, mine := range sandbox.Of(fleet, all) {
		if sandbox.Runs(&mine[0]) {
			pods[name] = &mine[0]
		}
	}
	return pods, err
}

// looks is how many sandboxes are looked into at once.
const looks = 16

// lookTimeout is how long one has to answer.
const lookTimeout = 15 * time.Second

// readSessions looks into the sandboxes. With an error, the others' sessions
// are there all the same.
func readSessions(ctx context.Context, client *sandbox.Client, fleet *schema.Fleet, pods map[string]*corev1.Pod) ([]sessionInfo, error) {
	found := []sessionInfo{}
	var fails []error
	var mutex sync.Mutex // protects found and fails
	group := new(errgroup.Group)
	group.SetLimit(looks)
	for _, name := range slices.Sorted(maps.Keys(pods)) {
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, lookTimeout)
			defer cancel()
			state, err := client.Sessions(ctx, pods[name])
			declared, _ := fleet.Sandbox(name)
			mutex.Lock()
			defer mutex.Unlock()
			if err != nil {
				fails = append(fails, err)
				return nil
			}
			found = append(found, sessionRows(name, declared, state)...)
			return nil
		})
	}
	_ = group.Wait() // its functions return no error: all are to be heard
	slices.SortFunc(found, func(a, b sessionInfo) int {
		return strings.Compare(a.Sandbox+"/"+a.Name, b.Sandbox+"/"+b.Name)
	})
	return found, errors.Join(fails...)
}

// The last words of dead panes: how many lines of each, and of how many panes
// in one sandbox.
const (
	lastLines   = 5
	lastPanes   = 20
	screenLines = 200 // among which they are
)

// addLastLines adds what the dead panes said last.
func addLastLines(ctx context.Context, client *sandbox.Client, pods map[string]*corev1.Pod, found []sessionInfo) error {
	group := new(errgroup.Group)
	group.SetLimit(looks)
	perSandbox := map[string]int{}
	for i := range found {
		for j := range found[i].Panes {
			s, p := &found[i], &found[i].Panes[j]
			if !p.Dead || perSandbox[s.Sandbox] >= lastPanes {
				continue
			}
			perSandbox[s.Sandbox]++
			group.Go(func() error {
				ctx, cancel := context.WithTimeout(ctx, lookTimeout)
				defer cancel()
				text, err := client.Capture(ctx, pods[s.Sandbox], session.PaneTarget(p.id), screenLines, captureLimit)
				p.LastLines = []string{}
				for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
					if line = plainLine(line); line != "" && !strings.HasPrefix(line, "Pane is dead") { // which is tmux's own
						p.LastLines = append(p.LastLines, line)
					}
				}
				p.LastLines = p.LastLines[max(0, len(p.LastLines)-lastLines):]
				return err
			})
		}
	}
	return group.Wait()
}

// plainLine is a line of a sandbox as plain text.
func plainLine(line string) string {
	var plain strings.Builder
	_, _ = io.WriteString(&plainWriter{out: &plain}, line) // a builder takes everything
	return strings.TrimSpace(plain.String())
}

// sessionRows are the sessions that there are, and those that should be.
func sessionRows(name string, declared schema.Sandbox, state session.State) []sessionInfo {
	var rows []sessionInfo
	isDeclared := map[string]bool{}
	for _, s := range declared.Sessions {
		isDeclared[s.Name] = true
		if state.Session(s.Name) == nil {
			rows = append(rows, sessionInfo{Name: s.Name, Sandbox: name, TaskID: session.TaskOf(s.Name), Declared: true, Panes: []paneInfo{}})
		}
	}
	for _, s := range state.Sessions {
		row := sessionInfo{
			Name: printable(s.Name), Sandbox: name, TaskID: printable(session.TaskOf(s.Name)),
			Declared: isDeclared[s.Name], Present: true, Managed: s.Mark != "",
			Windows: len(s.Windows), Attached: s.Attached, Created: &s.Created, Activity: &s.Activity, Panes: []paneInfo{},
		}
		for _, w := range s.Windows {
			for _, p := range w.Panes {
				row.Panes = append(row.Panes, paneRow(s, w, p))
			}
		}
		rows = append(rows, row)
	}
	return rows
}

func paneRow(s session.Session, w session.Window, p session.Pane) paneInfo {
	row := paneInfo{
		Name: printable(fmt.Sprintf("%s:%s.%d", s.Name, w.Name, p.Index)), Command: printable(p.Title()), Managed: p.Mark != "",
		Dead: p.Dead, Restarts: p.Restarts, id: p.ID,
	}
	if p.Dead {
		row.ExitStatus, row.Signal = new(p.Status), printable(p.Signal)
		if !p.DeadAt.IsZero() {
			row.Ended = &p.DeadAt
		}
	}
	return row
}

// text says how a dead pane ended.
func (p paneInfo) text() string {
	how := session.Pane{Status: *p.ExitStatus, Signal: p.Signal}.Ended()
	return fmt.Sprintf("%s %s: %s", p.Name, how, p.Command)
}

func printSessionTable(out io.Writer, found []sessionInfo, now time.Time) error {
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "SANDBOX\tSESSION\tWINDOWS\tATTACHED\tCREATED\tACTIVITY\tDECLARED")
	ago := func(at *time.Time) string {
		if at == nil {
			return "-"
		}
		return duration.HumanDuration(now.Sub(*at)) + " ago"
	}
	for _, s := range found {
		windows, attached := "-", "-"
		if s.Present {
			windows, attached = fmt.Sprint(s.Windows), fmt.Sprint(s.Attached)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Sandbox, shortLine(s.Name), windows, attached, ago(s.Created), ago(s.Activity), s.declared())
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return printDead(out, found)
}

// declared says what the file has to do with a session.
func (s sessionInfo) declared() string {
	switch {
	case s.Declared && !s.Present:
		return "yes, and not there"
	case s.Declared && !s.Managed:
		return "yes, but made by people"
	case s.Declared:
		return "yes"
	case s.Managed:
		return "not any more"
	}
	return "no"
}

// printDead prints the panes whose command has ended, with the last that it said.
func printDead(out io.Writer, found []sessionInfo) error {
	for _, s := range found {
		for _, p := range s.Panes {
			if !p.Dead {
				continue
			}
			fmt.Fprintf(out, "\n  %s: %s\n", s.Sandbox, shortLine(p.text()))
			for _, line := range p.LastLines {
				fmt.Fprintf(out, "    | %s\n", shortLine(line))
			}
		}
	}
	return nil
}
