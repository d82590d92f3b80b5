package main

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/agentpane/sandboxctl/schema"
)

// completionTime is how long a prompt waits for the cluster, or for a sandbox's
// word.
const completionTime = 2 * time.Second

// completeName completes the name of a sandbox, where no argument is there yet.
func (f *sandboxFlags) completeName(env environment) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return f.names(cmd.Context(), env, ""), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeClaim completes the name of a sandbox that a program has claimed,
// where no argument is there yet.
func (f *sandboxFlags) completeClaim(env environment) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return f.claimNames(cmd.Context(), env, ""), cobra.ShellCompDirectiveNoFileComp
	}
}

// names are the sandboxes as completions: the declared ones, and those that
// programs have claimed.
func (f *sandboxFlags) names(ctx context.Context, env environment, suffix string) []cobra.Completion {
	return append(f.files.names(suffix), f.claimNames(ctx, env, suffix)...)
}

// names are the declared sandboxes as completions; none where the files have
// errors, as a shell's prompt is no place for them.
func (f *fleetFlags) names(suffix string) []cobra.Completion {
	if slices.Contains(f.files, "-") { // the prompt's own input
		return nil
	}
	fleets, _ := schema.Load(f.files, strings.NewReader(""))
	var names []cobra.Completion
	for _, fleet := range fleets {
		for _, sandbox := range fleet.Sandboxes {
			names = append(names, cobra.CompletionWithDesc(sandbox.Name+suffix, "project "+sandbox.Project+", "+string(sandbox.State)))
		}
	}
	return names
}

// claimNames are the sandboxes that programs have claimed from the one fleet, as
// completions; none where the cluster does not tell in time. It is asked only of
// a fleet that has pools.
func (f *sandboxFlags) claimNames(ctx context.Context, env environment, suffix string) []cobra.Completion {
	if slices.Contains(f.files.files, "-") {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, completionTime)
	defer cancel()
	env.stderr = io.Discard
	fleet, client, _, err := f.claims(env)
	if err != nil || len(fleet.Pools) == 0 {
		return nil
	}
	pods, err := client.Pods(ctx, "")
	if err != nil {
		return nil
	}
	var names []cobra.Completion
	for _, pod := range pods {
		if pod.Claim != nil && !pod.Claim.Until.IsZero() && !pod.Going {
			names = append(names, cobra.CompletionWithDesc(pod.Claim.Sandbox+suffix, "project "+pod.Claim.Project+", claimed"))
		}
	}
	return names
}
