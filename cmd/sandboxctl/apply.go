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
	noWait  bool
	timeout time.Duration
}

// startupTimeout is how long the original waited for a pod.
const startupTimeout = 120 * time.Second

func newApplyCommand(env environment) *cobra.Command {
	var options applyOptions
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
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			done, err := options.audit.open(env, &options.connect)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, done()) }()
			if len(args) == 1 {
				options.saved = args[0]
				if len(options.plan.Start) > 0 {
					return errors.New("a saved plan says what is started: give --start to plan")
				}
				if len(options.files.files) > 0 {
					return errors.New("a saved plan holds what is to be applied: leave out --file")
				}
				return applySaved(cmd.Context(), env, options)
			}
			return applyFiles(cmd.Context(), env, options)
		},
	}
	options.files.add(cmd)
	options.connect.addFlags(cmd, env)
	addPlanFlags(cmd, &options.plan)
	options.audit.add(cmd)
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
		target, p, err := options.connect.plan(ctx, env, fleet, options.plan)
		if err != nil {
			return err
		}
		printPlan(env.stdout, p)
		if blocked := p.Blocked(); len(blocked) > 0 {
			return blockedError(blocked, "; nothing was changed")
		}
		if err := target.reconciler.NoteActivity(ctx, p.Plan); err != nil {
			return err
		}
		if err := applyPlan(ctx, env, options, target, fleet.Fleet, p.Plan, unchangedPods(p.Plan)); err != nil {
			return err
		}
	}
	return nil
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
	if err != nil {
		return fmt.Errorf("%s: %w", options.saved, err)
	}
	fleet := &schema.Fleet{Name: p.Fleet, Namespace: p.Namespace}
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
		if err := confirm(env, "Apply these changes?"); err != nil {
			return err
		}
	}
	progress := newApplyProgress(env)
	var result reconcile.Result
	var err error
	if len(p.Changes)+len(p.Pools) > 0 {
		result, err = target.reconciler.Apply(ctx, fleet, p, progress.tell)
	}
	var waitErr error
	if err == nil && !options.noWait {
		waitErr = target.reconciler.WaitReady(ctx, fleet, slices.Concat(unchanged, result.Done, result.Pooled), options.timeout, progress.tell)
	}
	var sessions reconcile.SessionResult
	if err == nil { // a pod that is not ready keeps no other from its sessions
		var sessionErr error
		sessions, sessionErr = target.reconciler.ApplySessions(ctx, fleet, p, progress.tellSessions)
		err = errors.Join(waitErr, sessionErr)
	} else {
		sessions.Left = p.Sessions
	}
	if p.Empty() {
		return err
	}
	return progress.finish(fleet.Name, result, sessions, err)
}

// confirm asks a question that only "yes" answers with yes.
func confirm(env environment, question string) error {
	if !env.interactive {
		return errors.New("this asks before it changes anything: pass --yes where nobody can answer")
	}
	fmt.Fprintf(env.stderr, "%s Only \"yes\" does: ", question)
	answer, err := bufio.NewReader(env.stdin).ReadString('\n')
	if strings.TrimSpace(answer) != "yes" {
		return errors.Join(errors.New("not confirmed; nothing was changed"), err)
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
	ref, out := event.Change.Ref, a.env.stderr
	switch event.Phase {
	case reconcile.Started:
		a.started[ref] = a.env.now()
	case reconcile.Done:
		fmt.Fprintf(out, "  %s %s\n", ref, pastOf(event.Change.Action))
	case reconcile.Waiting:
		fmt.Fprintf(out, "  %s: %s\n", ref, printable(event.Message))
	case reconcile.Ready:
		if started, ok := a.started[ref]; ok { // that an unchanged one is ready is no news
			fmt.Fprintf(out, "  %s ready (%.1fs)\n", ref, a.env.now().Sub(started).Seconds())
		}
	case reconcile.Failed:
		fmt.Fprintf(out, "  %s failed\n", ref)
	}
}

// finish prints what was done and what is left, and returns the error that the
// command ends with.
func (a *applyProgress) finish(fleet string, result reconcile.Result, sessions reconcile.SessionResult, err error) error {
	done := len(result.Done)
	for _, s := range sessions.Done {
		done += len(s.Changes)
	}
	fmt.Fprintf(a.env.stdout, "Fleet %s: %s made in %.1fs.\n", fleet, count(done, "change"), a.env.now().Sub(a.begun).Seconds())
	for _, change := range result.Left {
		fmt.Fprintf(a.env.stdout, "  not done: %s %s\n", change.Action, change.Ref)
	}
	for _, s := range sessions.Left {
		for _, change := range s.Changes {
			fmt.Fprintf(a.env.stdout, "  not done: %s %s, as its pod is not ready\n", change.Action, sessionName(s.Sandbox, change))
		}
	}
	if errors.Is(err, context.Canceled) {
		failed := slices.DeleteFunc(splitErrors(err), func(err error) bool { return errors.Is(err, context.Canceled) })
		return errors.Join(append(failed, errors.New("interrupted: what was under way is finished; run it again to go on from there"))...)
	}
	return err
}
