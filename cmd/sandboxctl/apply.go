package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/agentpane/sandboxctl/reconcile"
	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/schema"
)

// applyOptions are the flags of apply, and its argument.
type applyOptions struct {
	files   fleetFlags
	connect connectFlags
	plan    reconcile.Options
	audit   auditFlags
	saved   string // a saved plan; empty to plan first
	yes     bool
	// sparing: what is suspended is only planned.
	sparing bool
	noWait  bool
	timeout time.Duration
}

// startupTimeout is how long the original waited for a pod.
const startupTimeout = 120 * time.Second

func newApplyCommand(env environment) *cobra.Command {
	var options applyOptions
	var planFlags []string
	cmd := &cobra.Command{
		Use:   "apply [FILE.plan]",
		Short: "Make the cluster as the file says",
		Long: `Make the cluster as the file says: plan, ask, apply, prune, and wait until the pods are
ready. With the file that plan --out saved, do exactly what that plan says, or refuse
and name what has changed since.

The first Ctrl-C finishes what is under way and says what is left; applying again goes on
from there.`,
		Example: `  sandboxctl apply
  sandboxctl apply --yes -f sandboxes.yaml
  sandboxctl apply --start api   # stopped as it was idle: run it again
  sandboxctl apply fleet.plan`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return options.audit.during(env, &options.connect, func() error { return applyFiles(cmd.Context(), env, options) })
			}
			options.saved = args[0]
			if err := refuseFlags(cmd, "a saved plan holds what is to be applied", append(planFlags, "start", "file")...); err != nil {
				return err
			}
			return options.audit.during(env, &options.connect, func() error { return applySaved(cmd.Context(), env, options) })
		},
	}
	options.files.add(cmd)
	options.connect.addFlags(cmd, env)
	planFlags = addPlanFlags(cmd, &options.plan)
	addStartFlag(cmd, &options.plan, &options.files)
	options.audit.add(cmd)
	options.connect.addLockFlag(cmd)
	cmd.Flags().BoolVarP(&options.yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&options.noWait, "no-wait", false, "do not wait until the pods are ready")
	cmd.Flags().DurationVar(&options.timeout, "timeout", startupTimeout, "how long to wait until the pods are ready")
	return cmd
}

func applyFiles(ctx context.Context, env environment, options applyOptions) error {
	fleets, err := options.files.load(env)
	if err != nil {
		return err
	}
	if err := checkStart(fleets, options.plan.Start); err != nil {
		return err
	}
	for _, fleet := range fleets {
		if err := applyFleet(ctx, env, options, fleet); err != nil {
			return err
		}
	}
	return nil
}

// applyFleet plans, asks and applies. What it says of what was not changed is
// about this fleet: others may have been before it.
func applyFleet(ctx context.Context, env environment, options applyOptions, fleet rendered) error {
	sighting := options.connect.observe(ctx, env, fleet.Fleet)
	p, err := sighting.plan(ctx, fleet, options.plan)
	if err != nil {
		return err
	}
	printPlan(env.stdout, p)
	if options.sparing {
		p.suspended.print(env.stdout, fleet.Name)
		if p.suspended.fleet != "" {
			return nil
		}
		p.Plan = p.suspended.spare(p.Plan)
	}
	if blocked := p.Blocked(); len(blocked) > 0 {
		return blockedError(blocked, "; nothing of fleet "+fleet.Name+" was changed")
	}
	if err := sighting.reconciler.NoteActivity(ctx, p.Plan); err != nil {
		return err
	}
	return applyPlan(ctx, env, options, sighting.target, fleet.Fleet, p.Plan, unchangedPods(p.Plan))
}

// unchangedPods are the pods of the file that the plan leaves as they are. An
// earlier apply may have given up waiting for them: all is well only when they
// are ready, too.
func unchangedPods(p plan.Plan) []plan.Change {
	var pods []plan.Change
	for _, ref := range p.Standing {
		pods = append(pods, plan.Change{Ref: ref, Action: plan.Update, Disruption: plan.None})
	}
	return pods
}

// applySaved applies a saved plan: to the cluster that it was made for, and to
// objects that are still as it saw them.
func applySaved(ctx context.Context, env environment, options applyOptions) error {
	content, err := os.ReadFile(options.saved)
	if err != nil {
		return err
	}
	p, source, err := plan.Open(content)
	if err != nil && isFleetFile(options.saved) {
		return namedByFile("sandboxctl apply", options.saved)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", options.saved, err)
	}
	fleet := source.Fleet(p)
	target, err := options.connect.target(env, fleet)
	if err != nil {
		return err
	}
	cluster, err := target.cluster.Identity(ctx)
	if err != nil {
		return err
	}
	if string(cluster) != source.Cluster {
		return failure.New(failure.PlanStale, failure.Object{Kind: "fleet", Namespace: p.Namespace, Name: p.Fleet},
			"%s was made for another cluster than that of context %s", options.saved, target.cluster.Context).
			WithHint("choose the plan's own cluster with --kubeconfig and --context")
	}
	if err := target.reconciler.CheckFresh(ctx, p); err != nil {
		return err
	}
	options.yes = true // whoever saved the plan has seen it
	return applyPlan(ctx, env, options, target, fleet, p, nil)
}

// applyPlan asks, applies and waits, also for the pods that do not change.
func applyPlan(ctx context.Context, env environment, options applyOptions, target target, fleet *schema.Fleet, p plan.Plan, unchanged []plan.Change) error {
	if !p.Empty() && !options.yes {
		if err := confirm(ctx, env, "Apply these changes?", fleet.Name); err != nil {
			return err
		}
	}
	progress := newApplyProgress(env)
	var made applyResult
	var err error
	if len(p.Changes)+len(p.Pools) > 0 {
		if made.Result, err = target.reconciler.Apply(ctx, fleet, p, progress.tell); err != nil {
			made.poolsLeft = levelsLeft(p.Pools, made.Pooled)
		}
	}
	var waitErr error
	if err == nil && !options.noWait {
		waitErr = target.reconciler.WaitReady(ctx, fleet, slices.Concat(unchanged, made.Done, made.Pooled), options.timeout, progress.tell)
	}
	if err == nil { // a pod that is not ready keeps no other from its sessions
		var sessionErr error
		made.sessions, sessionErr = target.reconciler.ApplySessions(ctx, fleet, p, progress.tellSessions)
		err = errors.Join(waitErr, sessionErr)
	} else {
		made.sessions.Left = p.Sessions
	}
	if p.Empty() {
		return err
	}
	return progress.finish(fleet.Name, made, err)
}

// applyResult is what applying a plan came to.
type applyResult struct {
	reconcile.Result
	// poolsLeft are the pools' changes that were not made as something failed.
	poolsLeft []plan.PoolLevel
	sessions  reconcile.SessionResult
}

// confirm asks a question about the fleet that only "yes" answers with yes.
func confirm(ctx context.Context, env environment, question, fleet string) error {
	if !env.interactive {
		return errors.New("this asks before it changes anything: pass --yes where nobody can answer")
	}
	fmt.Fprintf(env.stderr, "%s Only \"yes\" does: ", question)
	var answer string
	var err error
	read := make(chan struct{})
	go func() { // a terminal's read ends with a line only: after an interrupt, this ends with the process
		defer close(read)
		answer, err = bufio.NewReader(env.stdin).ReadString('\n')
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(env.stderr)
		return fmt.Errorf("interrupted; nothing of fleet %s was changed", fleet)
	case <-read:
	}
	if strings.TrimSpace(answer) != "yes" {
		return errors.Join(fmt.Errorf("not confirmed; nothing of fleet %s was changed", fleet), err)
	}
	return nil
}

// applyProgress prints what happens while a plan is applied, one line each.
type applyProgress struct {
	env     environment
	begun   time.Time
	mutex   sync.Mutex // protects started and the order of lines
	started map[plan.Ref]time.Time
}

func newApplyProgress(env environment) *applyProgress {
	return &applyProgress{env: env, begun: env.now(), started: map[plan.Ref]time.Time{}}
}

// pastOf is what an action is called once it is done.
func pastOf(action plan.Action) string {
	switch action {
	case plan.Create:
		return "created"
	case plan.Adopt:
		return "adopted"
	case plan.Replace:
		return "replaced"
	case plan.Delete:
		return "deleted"
	}
	return "changed"
}

func (a *applyProgress) tell(event reconcile.Event) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	what, ref, out := event.Change, event.Change.Ref, a.env.stderr
	switch event.Phase {
	case reconcile.Started:
		a.started[ref] = a.env.now()
	case reconcile.Done:
		fmt.Fprintf(out, "  %s %s\n", what, pastOf(event.Change.Action))
	case reconcile.Waiting:
		fmt.Fprintf(out, "  %s: %s\n", what, printable(event.Message))
	case reconcile.Ready:
		if started, ok := a.started[ref]; ok { // that an unchanged one is ready is no news
			fmt.Fprintf(out, "  %s ready (%.1fs)\n", what, a.env.now().Sub(started).Seconds())
		}
	case reconcile.Failed:
		how := "failed"
		if failure.CodeOf(event.Err) == failure.PodStartupTimeout {
			how = "not ready in time"
		}
		fmt.Fprintf(out, "  %s %s\n", what, how)
	}
}

// finish prints what was done and what is left, and returns the error that the
// command ends with.
func (a *applyProgress) finish(fleet string, made applyResult, err error) error {
	done := len(made.Done) + len(made.Pooled)
	for _, s := range made.sessions.Done {
		done += len(s.Changes)
	}
	out := a.env.stdout
	fmt.Fprintf(out, "Fleet %s: %s made in %.1fs.\n", fleet, count(done, "change"), a.env.now().Sub(a.begun).Seconds())
	for _, change := range made.Left {
		fmt.Fprintf(out, "  not done: %s %s\n", change.Action, change)
	}
	for _, level := range made.poolsLeft {
		fmt.Fprintf(out, "  not done: pool %s: %s\n", level.Name, levelWork(level))
	}
	for _, s := range made.sessions.Left {
		for _, change := range s.Changes {
			fmt.Fprintf(out, "  not done: %s %s, as its pod is not ready\n", change.Action, sessionName(s.Sandbox, change))
		}
	}
	if errors.Is(err, context.Canceled) {
		failed := slices.DeleteFunc(splitErrors(err), func(err error) bool { return errors.Is(err, context.Canceled) })
		return errors.Join(append(failed, errors.New("interrupted: what was under way is finished; run it again to go on from there"))...)
	}
	return err
}

// levelsLeft is what of the pools' levels is not among what was done.
func levelsLeft(levels []plan.PoolLevel, done []plan.Change) []plan.PoolLevel {
	var rest []plan.PoolLevel
	for _, level := range levels {
		level.Changes = slices.DeleteFunc(slices.Clone(level.Changes), func(change plan.Change) bool {
			return slices.ContainsFunc(done, func(d plan.Change) bool { return d.Ref == change.Ref })
		})
		if len(level.Changes) > 0 {
			rest = append(rest, level)
		}
	}
	return rest
}
