package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/agentpane/sandboxctl/reconcile/sandbox"
	"github.com/agentpane/sandboxctl/reconcile/session"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// statusInfo is the JSON of status. The fields from healthy to podsRunning are
// AgentPane's; those that need an answer of the cluster are null, or empty,
// where there is none.
type statusInfo struct {
	FormatVersion string `json:"formatVersion"`
	Fleet         string `json:"fleet"`
	// Healthy tells whether the cluster answers.
	Healthy bool   `json:"healthy"`
	Message string `json:"message"`
	// Errors are why it does not, or why some sessions could not be had.
	Errors          []errorInfo `json:"errors"`
	Context         string      `json:"context"`
	Cluster         string      `json:"cluster"`
	Server          string      `json:"server"`
	ServerVersion   string      `json:"serverVersion"`
	Namespace       string      `json:"namespace"`
	NamespaceExists *bool       `json:"namespaceExists"`
	// Pods and PodsRunning count the pods of all sandboxes in the namespace.
	Pods        *int `json:"pods"`
	PodsRunning *int `json:"podsRunning"`
	// Applied tells whether the fleet is in the cluster.
	Applied   *bool         `json:"applied"`
	Sandboxes []sandboxInfo `json:"sandboxes"`
	// TmuxSessions are there with --sessions only.
	TmuxSessions []sessionInfo `json:"tmuxSessions,omitzero"`
	// sessionsErr is why some of them could not be had.
	sessionsErr error
	// Pools are the warm pools with their metrics.
	Pools []poolInfo `json:"pools"`
}

// sandboxInfo is one sandbox that the file declares, or one pod that it no
// longer does.
type sandboxInfo struct {
	Name     string `json:"name"`
	Project  string `json:"project"`
	Declared bool   `json:"declared"`
	// Claim is a program's; null for any other sandbox.
	Claim *claimStatus `json:"claim"`
	// State is the declared one; null for a pod that is not declared.
	State *schema.State `json:"state"`
	// Pod is null where there is none.
	Pod *podInfo `json:"pod"`
	// Phase is the pod's; empty where there is none.
	Phase corev1.PodPhase `json:"phase"`
	Ready bool            `json:"ready"`
	// Reason is why it is not ready, or not declared.
	Reason    string        `json:"reason"`
	Image     string        `json:"image"`
	Resources resourcesInfo `json:"resources"`
	Sessions  sessionsState `json:"sessions"`
	// Created is when the pod was.
	Created *time.Time `json:"created"`
	// LastActivity is when somebody last used it, as far as that was noted; it
	// is for sandboxes that stop when they are idle.
	LastActivity *time.Time `json:"lastActivity"`
	// IdleSince is when something last happened in a sandbox that was stopped as
	// it was idle; null for any other.
	IdleSince *time.Time `json:"idleSince"`
}

// claimStatus is who has claimed a sandbox, and until when.
type claimStatus struct {
	Pool   string     `json:"pool"`
	By     string     `json:"by"`
	At     *time.Time `json:"at"`
	Until  *time.Time `json:"until"`
	Origin string     `json:"origin"`
}

// claimOf is the claim of a pod that a program has claimed; nil for another.
func claimOf(pod *corev1.Pod) *claimStatus {
	until := annotatedTime(pod, render.LeaseUntilAnnotation)
	if until == nil {
		return nil
	}
	return &claimStatus{
		Pool: pod.Labels[render.PoolIDLabel], By: pod.Annotations[render.ClaimedByAnnotation],
		At: annotatedTime(pod, render.ClaimedAtAnnotation), Until: until, Origin: pod.Annotations[render.OriginAnnotation],
	}
}

// annotatedTime is the time that an annotation holds; nil where it holds none.
func annotatedTime(pod *corev1.Pod, annotation string) *time.Time {
	t, err := time.Parse(time.RFC3339Nano, pod.Annotations[annotation])
	if err != nil {
		return nil
	}
	return new(t.UTC())
}

type podInfo struct {
	Name      string    `json:"name"`
	Namespace string    `json:"namespace"`
	UID       types.UID `json:"uid"`
}

// sessionsState is what the pod says of its tmux sessions: those that are
// declared, and whether they were seen to be there in this life of its
// container, as they are declared now.
type sessionsState struct {
	Declared  int  `json:"declared"`
	Confirmed bool `json:"confirmed"`
}

// text is how the table shows it.
func (s sessionsState) text() string {
	switch {
	case s.Declared == 0:
		return "-"
	case s.Confirmed:
		return fmt.Sprint(s.Declared)
	}
	return fmt.Sprintf("0/%d", s.Declared)
}

// resourcesInfo is the limits of the sandbox's container, as quantities; null
// where there is none.
type resourcesInfo struct {
	CPU    *string `json:"cpu"`
	Memory *string `json:"memory"`
}

// fill adds what the cluster shows.
func (s *statusInfo) fill(fleet *schema.Fleet, seen sandbox.Observation) {
	running := 0
	for _, pod := range seen.Pods {
		if pod.Status.Phase == corev1.PodRunning {
			running++
		}
	}
	s.Pods, s.PodsRunning = new(len(seen.Pods)), new(running)
	s.NamespaceExists, s.Applied = new(seen.NamespaceExists), new(seen.Applied)
	s.Sandboxes = sandboxRows(fleet, seen.Pods)
	for i := range s.Sandboxes {
		s.Sandboxes[i].stopped(seen.Stopped)
	}
	s.Message = s.health()
}

// health is the one line that says how things are.
func (s *statusInfo) health() string {
	wanted, ready, undeclared, claimed, idle := 0, 0, 0, 0, 0
	for _, row := range s.Sandboxes {
		switch {
		case row.Claim != nil:
			claimed++
		case !row.Declared:
			undeclared++
		case row.IdleSince != nil:
			idle++
		case *row.State == schema.Running && row.Ready:
			wanted, ready = wanted+1, ready+1
		case *row.State == schema.Running:
			wanted++
		}
	}
	if !*s.Applied && undeclared+claimed == 0 && ready == 0 {
		if !*s.NamespaceExists {
			return "the cluster is healthy; the fleet is not applied yet, and namespace " + s.Namespace + " does not exist"
		}
		return "the cluster is healthy; the fleet is not applied yet"
	}
	text := "the cluster is healthy; "
	switch {
	case wanted == 0 && idle > 0:
		text += "no other sandbox is declared to run"
	case wanted == 0:
		text += "no sandbox is declared to run"
	case ready == wanted:
		text += count(wanted, "sandbox is ready", "sandboxes are ready")
	default:
		text += fmt.Sprintf("%d of %s ready", ready, count(wanted, "sandbox is", "sandboxes are"))
	}
	if idle > 0 {
		text += "; " + count(idle, "sandbox is", "sandboxes are") + " stopped, being idle"
	}
	if claimed > 0 {
		text += "; " + count(claimed, "sandbox is claimed by a program", "sandboxes are claimed by programs")
	}
	if undeclared > 0 {
		text += "; " + count(undeclared, "pod is no longer declared", "pods are no longer declared")
	}
	return text
}

// sandboxRows is one row per declared sandbox, and after them one per pod of
// the fleet that none of them stands for.
func sandboxRows(fleet *schema.Fleet, pods []corev1.Pod) []sandboxInfo {
	rows := []sandboxInfo{}
	undeclared := "the file no longer declares it: the next apply removes it"
	if len(fleet.Sandboxes) == 0 {
		undeclared = "the file names no sandbox at all: it stays, and apply --prune-all removes it"
	}
	mine := sandbox.Of(fleet, pods)
	for _, declared := range fleet.Sandboxes {
		row := sandboxInfo{
			Name: declared.Name, Project: declared.Project, Declared: true, State: new(declared.State), Image: declared.Image,
			Resources: resourcesInfo{amount(declared.Resources.CPU), amount(declared.Resources.Memory)},
			Sessions:  sessionsState{Declared: len(declared.Sessions)},
		}
		if found := mine[declared.Name]; len(found) > 0 {
			row.show(&found[0])
			row.Sessions.Confirmed = sandbox.Confirmed(&found[0], session.Desired{Sessions: declared.Sessions}.With(render.EnvOf(found[0].Annotations)))
			mine[declared.Name] = found[1:]
		}
		row.Reason = cmp.Or(row.whyDeclared(), row.Reason)
		rows = append(rows, row)
	}
	for _, name := range slices.Sorted(maps.Keys(mine)) {
		for i := range mine[name] {
			pod := &mine[name][i]
			row := sandboxInfo{Name: name, Project: pod.Labels[render.ProjectIDLabel]}
			row.show(pod)
			if row.Claim != nil {
				rows = append(rows, row)
				continue
			}
			row.Reason = cmp.Or(row.Reason, undeclared)
			rows = append(rows, row)
		}
	}
	return rows
}

// whyDeclared says what the file has to do with a row that is not ready.
func (s *sandboxInfo) whyDeclared() string {
	stopped := *s.State == schema.Stopped
	switch {
	case s.Pod == nil && stopped:
		return "it is declared to be stopped"
	case s.Pod == nil:
		return "it has no pod: the next apply starts it"
	case stopped && s.Ready:
		return "it is declared to be stopped: the next apply stops it"
	}
	return ""
}

// stopped takes over why the sandbox has no pod, where it was idle.
func (s *sandboxInfo) stopped(records map[string]render.IdleRecord) {
	record, ok := records[s.Name]
	if !ok || !s.Declared || s.Pod != nil || *s.State != schema.Running {
		return
	}
	since := record.Since.UTC()
	s.IdleSince, s.LastActivity = &since, &since
	s.Reason = fmt.Sprintf("stopped: idle since %s; sandboxctl apply --start %s starts it", since.Format(time.RFC3339), s.Name)
}

// show takes over what a pod shows of itself.
func (s *sandboxInfo) show(pod *corev1.Pod) {
	s.Pod = &podInfo{pod.Name, pod.Namespace, pod.UID}
	s.Phase, s.Created = pod.Status.Phase, new(pod.CreationTimestamp.UTC())
	s.Reason, _ = sandbox.NotReady(pod)
	s.Claim, s.LastActivity = claimOf(pod), annotatedTime(pod, render.ActivityAnnotation)
	s.Ready = s.Reason == ""
	for _, container := range pod.Spec.Containers {
		if container.Name == render.ContainerName {
			limits := container.Resources.Limits
			s.Image, s.Resources = container.Image, resourcesInfo{amount(*limits.Cpu()), amount(*limits.Memory())}
		}
	}
}

func amount(quantity resource.Quantity) *string {
	if quantity.IsZero() {
		return nil
	}
	return new(quantity.String())
}

// print prints what people read.
func (s *statusInfo) print(out io.Writer, now time.Time) error {
	fmt.Fprintf(out, "Fleet %s, namespace %s, context %s, server %s (%s):\n\n", s.Fleet, s.Namespace, s.Context, s.Server, s.ServerVersion)
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	withSessions := slices.ContainsFunc(s.Sandboxes, func(row sandboxInfo) bool { return row.Sessions.Declared > 0 })
	columns := func(sandbox, project, declared, phase, ready, cpu, memory, sessions, age, pod string) {
		cells := []string{sandbox, project, declared, phase, ready, cpu, memory, sessions, age, pod}
		if !withSessions {
			cells = slices.Delete(cells, 7, 8)
		}
		fmt.Fprintln(table, printable(strings.Join(cells, "\t")))
	}
	columns("SANDBOX", "PROJECT", "DECLARED", "PHASE", "READY", "CPU", "MEMORY", "SESSIONS", "AGE", "POD")
	for _, row := range s.Sandboxes {
		declared, pod, age := "not any more", "-", "-"
		if row.Claim != nil {
			declared = "claimed, " + duration.HumanDuration(max(0, row.Claim.Until.Sub(now))) + " left"
		}
		if row.Declared {
			declared = string(*row.State)
		}
		if row.Pod != nil {
			pod, age = row.Pod.Name, duration.HumanDuration(now.Sub(*row.Created))
		}
		columns(row.Name, row.Project, declared, cmp.Or(string(row.Phase), "-"), yesNo(row.Ready),
			orDash(row.Resources.CPU), orDash(row.Resources.Memory), row.Sessions.text(), age, pod)
	}
	if len(s.Sandboxes) > 0 {
		if err := table.Flush(); err != nil {
			return err
		}
		fmt.Fprintln(out)
	}
	for _, row := range s.Sandboxes {
		if row.Reason != "" && (!row.Declared || *row.State == schema.Running || row.Pod != nil) {
			fmt.Fprintf(out, "  %s: %s\n", row.Name, shortLine(row.Reason))
		}
		if row.Pod != nil && row.LastActivity != nil {
			fmt.Fprintf(out, "  %s: last used %s ago\n", row.Name, duration.HumanDuration(max(0, now.Sub(*row.LastActivity))))
		}
		if row.Ready && row.Sessions.Declared > 0 && !row.Sessions.Confirmed {
			fmt.Fprintf(out, "  %s: its sessions were not seen to be as declared: the next apply sees to it\n", row.Name)
		}
	}
	if len(s.TmuxSessions) > 0 {
		if err := printSessionTable(out, s.TmuxSessions, now); err != nil {
			return err
		}
		fmt.Fprintln(out)
	}
	for _, p := range s.Pools {
		fmt.Fprintf(out, "Pool %s: %d of %d warm pods ready, %d claimed of at most %d.\n", p.Name, p.ReadyPods, p.TargetSize, p.AllocatedPods, p.MaxSize)
	}
	if len(s.Pools) > 0 {
		fmt.Fprintln(out)
	}
	_, err := fmt.Fprintf(out, "Health: %s.\n", s.Message)
	return err
}

// shortLine is what a pod says of itself as one line: parts of it are written by
// what runs in the sandbox.
func shortLine(text string) string {
	const longest = 400
	runes := []rune(printable(strings.Join(strings.Fields(text), " ")))
	if len(runes) > longest {
		return string(runes[:longest-1]) + "…"
	}
	return string(runes)
}

func yesNo(value bool) string {
	if value {
		return "yes"
	}
	return "no"
}

func orDash(text *string) string {
	if text == nil {
		return "-"
	}
	return *text
}
