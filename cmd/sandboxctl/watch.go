package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/agentpane/sandboxctl/reconcile"
	"github.com/agentpane/sandboxctl/reconcile/filewatch"
	"github.com/agentpane/sandboxctl/reconcile/watch"
	"github.com/agentpane/sandboxctl/schema"
)

// watchOptions are the flags of watch.
type watchOptions struct {
	files   fleetFlags
	connect connectFlags
	plan    reconcile.Options
	mode    watchMode
	once    bool
	log     logFormat
	listen  string
	events  bool
	poll    time.Duration
	timeout time.Duration
	resync  watch.Options
	leader  leaderFlags
	audit   auditFlags
}

// watchMode is the value of --mode.
type watchMode string

const (
	modeApply  watchMode = "apply"
	modeDetect watchMode = "detect"
)

func newWatchCommand(env environment) *cobra.Command {
	var options watchOptions
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Keep the cluster as the file says",
		Long: `Keep the cluster as the file says: whenever the file is saved, or an object is changed or
deleted in the cluster, make it so again. While nothing changes, the server is asked nothing.

A file that is broken, half-written or gone is reported and changes nothing: the last good
one stays in force. With --mode=detect, what differs is reported and nothing is changed;
so it is, with --once too, for a fleet that says suspend: true, and for what has the
annotation ` + watch.SuspendAnnotation + `: "true" (a sandbox's pod, or the namespace).

The first Ctrl-C finishes what is under way. Exit code 0; with --once --mode=detect, 2 when
something differs.`,
		Example: `  sandboxctl watch
  sandboxctl watch --mode=detect --once && echo "no drift"
  sandboxctl watch -f fleets/ --log=json --listen :8080`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if options.once {
				if err := refuseFlags(cmd, "with --once nothing is watched", watchedOnly()...); err != nil {
					return err
				}
			}
			return runWatch(cmd.Context(), env, options)
		},
	}
	options.files.add(cmd)
	options.connect.addFlags(cmd, env)
	addPlanFlags(cmd, &options.plan)
	flags := cmd.Flags()
	addWordFlag(cmd, &options.mode, "mode", "", "what to do about differences", modeApply, modeDetect)
	addWordFlag(cmd, &options.log, "log", "", "how to tell what happens; auto is for people on a terminal, else lines of key=value", logAuto, logHuman, logText, logJSON)
	flags.BoolVar(&options.once, "once", false, "do it once, and end")
	flags.StringVar(&options.listen, "listen", "", "serve /metrics, /healthz and /readyz on this address, as :8080")
	flags.BoolVar(&options.events, "events", true, "note what happens as Kubernetes events of the objects")
	flags.DurationVar(&options.poll, "poll", 5*time.Second, "how often to look at the file, for file systems that tell of no changes")
	flags.DurationVar(&options.resync.Resync, "resync", 5*time.Minute, "how often to compare everything, without asking the server")
	flags.DurationVar(&options.resync.FullResync, "full-resync", time.Hour, "how often to ask the server about everything by dry runs; 0 is never")
	flags.DurationVar(&options.timeout, "timeout", startupTimeout, "with --once, how long to wait until the pods are ready")
	options.leader.add(cmd)
	options.audit.add(cmd)
	return cmd
}

// watchedOnly are the flags that say how to watch.
func watchedOnly() []string {
	return []string{"log", "listen", "events", "poll", "resync", "full-resync", "leader-elect", "leader-elect-namespace"}
}

func runWatch(ctx context.Context, env environment, options watchOptions) (err error) {
	if slices.Contains(options.files.files, "-") {
		return errors.New("standard input cannot be watched: name a file with --file")
	}
	done, err := options.audit.open(env, &options.connect)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	if options.once {
		return watchOnce(ctx, env, options)
	}
	if options.poll <= 0 {
		return fmt.Errorf("--poll %s: want more than nothing, as 5s", options.poll)
	}
	options.resync.Detect, options.resync.Plan = options.mode == modeDetect, options.plan
	log := newWatchLog(env, options.log)
	fleets, found := readAs(options.files.files, strings.NewReader(""), renderedOf)
	log.findings(found)
	if found.HasErrors() {
		return brokenFiles{found}
	}
	paths := options.files.files
	if len(paths) == 0 {
		paths = []string{schema.DefaultFile}
	}
	files := filewatch.New(paths, func() []string { return schema.Files(options.files.files) }, options.poll)
	keeper := newKeeper(env, options, log)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return files.Run(ctx) })
	group.Go(func() error { return keeper.follow(ctx, fleets, files) })
	if options.listen != "" {
		group.Go(func() error { return serve(ctx, options.listen, keeper) })
	}
	err = group.Wait()
	stopErr := keeper.stopped()
	if errors.Is(err, context.Canceled) {
		return stopErr
	}
	return errors.Join(err, stopErr)
}

// watchOnce is plan, or apply, as watch would do it.
func watchOnce(ctx context.Context, env environment, options watchOptions) error {
	if options.mode == modeDetect {
		return runPlan(ctx, env, planOptions{
			files: options.files, connect: options.connect, plan: options.plan, output: outputText, detailed: true,
		})
	}
	options.connect.lockTimeout = reconcile.LockTerm
	return applyFiles(ctx, env, applyOptions{
		files: options.files, connect: options.connect, plan: options.plan, yes: true, sparing: true, timeout: options.timeout,
	})
}
