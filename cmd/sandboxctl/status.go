package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"github.com/agentpane/sandboxctl/reconcile/claim"
	"github.com/agentpane/sandboxctl/reconcile/sandbox"
	"github.com/agentpane/sandboxctl/reconcile/session"
	"github.com/agentpane/sandboxctl/schema"
)

// statusOptions are the flags of status.
type statusOptions struct {
	sandboxFlags
	output   outputFormat
	sessions bool
}

func newStatusCommand(env environment) *cobra.Command {
	var options statusOptions
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the health of the cluster and of the fleet's sandboxes",
		Long: `Show the health of the cluster and of the fleet's sandboxes: what the file declares, what
runs, and why what does not run does not, in the pod's own words. It changes nothing.

Of tmux sessions it says what the last apply has seen. With --sessions it looks into each
sandbox that has or should have some, and shows those that there are, and of commands that
have ended how they did and what they said last.

Exit code 0 when the cluster answers, also when sandboxes are not ready; else 1.`,
		Example: `  sandboxctl status
  sandboxctl status -o json | jq '.sandboxes[] | select(.ready | not)'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runStatus(cmd.Context(), env, options) },
	}
	options.addOne(cmd, env)
	options.output.addFlag(cmd)
	cmd.Flags().BoolVar(&options.sessions, "sessions", false, "look into the sandboxes, and show their tmux sessions")
	return cmd
}

func runStatus(ctx context.Context, env environment, options statusOptions) error {
	fleet, err := options.files.readOne(env)
	if err != nil {
		return err
	}
	info, err := readStatus(ctx, env, options, fleet)
	if errors.Is(err, context.Canceled) {
		return err
	}
	if err != nil {
		info.Message = "Kubernetes health check failed: " + err.Error()
	}
	if options.output == outputJSON {
		failed := errors.Join(err, info.sessionsErr)
		info.Errors = errorInfos(failed)
		return errors.Join(printJSON(env.stdout, info), failed)
	}
	if err != nil {
		return fmt.Errorf("unhealthy: %w", err)
	}
	return errors.Join(info.print(env.stdout, env.now()), info.sessionsErr)
}

// readStatus asks the cluster. With an error, the status holds what is known
// all the same.
func readStatus(ctx context.Context, env environment, options statusOptions, fleet *schema.Fleet) (statusInfo, error) {
	info := statusInfo{FormatVersion: formatVersion, Fleet: fleet.Name, Namespace: fleet.Namespace}
	client, cluster, err := options.clientOf(env, fleet)
	if err != nil {
		return info, err
	}
	info.Context, info.Cluster, info.Server = cluster.Context, cluster.Name, cluster.Server
	var seen sandbox.Observation
	version := ""
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		seen, err = client.Observe(groupCtx)
		return err
	})
	group.Go(func() (err error) {
		version, err = cluster.Version(groupCtx)
		return err
	})
	if len(fleet.Pools) > 0 {
		claims, err := claim.New(cluster.Config, fleet, env.now, claim.RandomText, holderName(env))
		if err != nil {
			return info, err
		}
		group.Go(func() (err error) {
			info.Pools, err = readPools(groupCtx, claims)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return info, err
	}
	info.Healthy, info.ServerVersion = true, version
	info.fill(fleet, seen)
	if options.sessions {
		info.TmuxSessions, info.sessionsErr = lookAtSessions(ctx, client, fleet, seen)
	}
	if info.Pools == nil {
		info.Pools = []poolInfo{}
	}
	return info, nil
}

// lookAtSessions reads the sessions of all sandboxes that run, and the last
// words of what has ended in them.
func lookAtSessions(ctx context.Context, client *sandbox.Client, fleet *schema.Fleet, seen sandbox.Observation) ([]sessionInfo, error) {
	pods := map[string]*corev1.Pod{}
	for name, mine := range sandbox.Of(fleet, seen.Pods) {
		declared, _ := fleet.Sandbox(name)
		mayHave := len(declared.Sessions) > 0 || mine[0].Annotations[session.NoteAnnotation] != ""
		if mayHave && sandbox.Runs(&mine[0]) {
			pods[name] = &mine[0]
		}
	}
	found, err := readSessions(ctx, client, fleet, pods)
	return found, errors.Join(err, addLastLines(ctx, client, pods, found))
}
