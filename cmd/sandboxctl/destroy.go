package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/agentpane/sandboxctl/schema"
	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

// destroyOptions are the flags of destroy.
type destroyOptions struct {
	files          fleetFlags
	connect        connectFlags
	audit          auditFlags
	yes            bool
	keepWorkspaces bool
	orphan         bool
}

func newDestroyCommand(env environment) *cobra.Command {
	var options destroyOptions
	cmd := &cobra.Command{
		Use:   "destroy",
		Short: "Remove all that a fleet owns",
		Long: `Remove all that a fleet owns: its pods with everything that runs in them, its
workspaces, its policies and roles, and its namespace, provided that sandboxctl made it
and nothing of anybody else is in it. It shows what will go, and asks.

With --orphan, nothing is removed: the objects stay and are nobody's.`,
		Example: `  sandboxctl destroy -f sandboxes.yaml
  sandboxctl destroy --keep-workspaces`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return options.audit.during(env, &options.connect, func() error { return runDestroy(cmd.Context(), env, options) })
		},
	}
	options.files.add(cmd)
	options.connect.addFlags(cmd, env)
	options.audit.add(cmd)
	options.connect.addLockFlag(cmd)
	cmd.Flags().BoolVarP(&options.yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&options.keepWorkspaces, "keep-workspaces", false, "keep the sandboxes' workspaces, and the namespace that they are in")
	cmd.Flags().BoolVar(&options.orphan, "orphan", false, "keep every object, and only stop owning them")
	cmd.MarkFlagsMutuallyExclusive("keep-workspaces", "orphan")
	return cmd
}

func runDestroy(ctx context.Context, env environment, options destroyOptions) error {
	fleets, err := options.files.read(env) // what is to go need not be applicable
	if err != nil {
		return err
	}
	for _, fleet := range fleets {
		if err := destroyFleet(ctx, env, options, fleet); err != nil {
			return err
		}
	}
	return nil
}

func destroyFleet(ctx context.Context, env environment, options destroyOptions, fleet *schema.Fleet) error {
	target, err := options.connect.target(env, fleet)
	if err != nil {
		return err
	}
	p, err := target.reconciler.PlanDestroy(ctx, fleet, options.keepWorkspaces)
	if err != nil {
		return err
	}
	if p.Empty() {
		fmt.Fprintf(env.stdout, "Fleet %s: there is nothing of it in context %s.\n", fleet.Name, target.cluster.Context)
		printKept(env.stdout, p)
		return nil
	}
	if options.orphan {
		if err := options.confirm(ctx, env, fmt.Sprintf("Stop owning %s of fleet %s?", count(len(p.Changes), "object"), fleet.Name), fleet.Name); err != nil {
			return err
		}
		orphaned, err := target.reconciler.Orphan(ctx, fleet)
		fmt.Fprintf(env.stdout, "Fleet %s: %s nobody's now.\n", fleet.Name, count(orphaned, "object is", "objects are"))
		return err
	}
	noPosition := func(string) diagnostic.Range { return diagnostic.Range{} } // what goes is in no file
	printPlan(env.stdout, planned{Plan: p, context: target.cluster.Context, position: noPosition})
	if err := options.confirm(ctx, env, "Destroy all this?", fleet.Name); err != nil {
		return err
	}
	progress := newApplyProgress(env)
	result, err := target.reconciler.Destroy(ctx, fleet, p, progress.tell)
	return progress.finish(fleet.Name, applyResult{Result: result}, err)
}

func (o destroyOptions) confirm(ctx context.Context, env environment, question, fleet string) error {
	if o.yes {
		return nil
	}
	return confirm(ctx, env, question, fleet)
}
