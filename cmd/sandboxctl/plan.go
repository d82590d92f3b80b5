package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/agentpane/sandboxctl/reconcile"
	"github.com/agentpane/sandboxctl/reconcile/plan"
)

// planOptions are the flags of plan.
type planOptions struct {
	files    fleetFlags
	connect  connectFlags
	plan     reconcile.Options
	output   outputFormat
	saveTo   string
	detailed bool
	poolPods bool
}

// planDocuments is the JSON of plan.
type planDocuments struct {
	FormatVersion string          `json:"formatVersion"`
	Plans         []plan.Document `json:"plans"`
}

func newPlanCommand(env environment) *cobra.Command {
	var options planOptions
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what apply would change",
		Long: `Show what apply would change, field by field, and what that means to those who work in
the sandboxes. It changes nothing.

Exit code 0; with --detailed-exitcode, 2 when there are changes. A plan that cannot be
applied as it stands is an error, and exits with 1.`,
		Example: `  sandboxctl plan
  sandboxctl plan --out fleet.plan && sandboxctl apply fleet.plan
  sandboxctl plan -o markdown >> "$GITHUB_STEP_SUMMARY"`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runPlan(cmd.Context(), env, options)
		},
	}
	options.files.add(cmd)
	options.connect.addFlags(cmd, env)
	addPlanFlags(cmd, &options.plan)
	addStartFlag(cmd, &options.plan, &options.files)
	options.output.addFlag(cmd, outputMarkdown, outputGitHub)
	cmd.Flags().StringVar(&options.saveTo, "out", "", "save the plan to this file, for apply")
	cmd.Flags().BoolVar(&options.poolPods, "pool-pods", false, "show the pods of warm pools one by one")
	cmd.Flags().BoolVar(&options.detailed, "detailed-exitcode", false, "exit with 2 when there are changes")
	return cmd
}

// addPlanFlags are the flags that plan, apply and watch share, and returns
// their names.
func addPlanFlags(cmd *cobra.Command, options *reconcile.Options) (names []string) {
	for _, flag := range []struct {
		value       *bool
		name, usage string
	}{
		{&options.Full, "full", "ask the server about every object, even where nothing seems to change"},
		{&options.ForceConflicts, "force-conflicts", "take over fields that other field managers own"},
		{&options.Adopt, "adopt", "take over objects that are there and nobody's"},
		{&options.ReplaceVolumes, "replace-workspaces", "replace workspaces that cannot be changed in place: all data in them is lost"},
		{&options.Prune.All, "prune-all", "remove the sandboxes also when the file names none any more"},
		{&options.Prune.Retained, "delete-retained-workspaces", "remove also workspaces that are to be retained"},
	} {
		cmd.Flags().BoolVar(flag.value, flag.name, false, flag.usage)
		names = append(names, flag.name)
	}
	return names
}

// refuseFlags says which of the flags was given although it would have no effect.
func refuseFlags(cmd *cobra.Command, why string, names ...string) error {
	for _, name := range names {
		if cmd.Flags().Changed(name) {
			return fmt.Errorf("%s: leave out --%s", why, name)
		}
	}
	return nil
}

func runPlan(ctx context.Context, env environment, options planOptions) error {
	// Most of what it makes is in use to its end: to look for garbage as often as usual is a fifth of its work.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	fleets, sightings, err := options.connect.loadObserving(ctx, env, &options.files)
	if err != nil {
		return err
	}
	if err := checkStart(fleets, options.plan.Start); err != nil {
		return err
	}
	if options.saveTo != "" && len(fleets) != 1 {
		return errors.New("--out saves the plan of one fleet: name its file with --file")
	}
	documents := planDocuments{FormatVersion: formatVersion, Plans: []plan.Document{}}
	changes := false
	var problems []error
	var blocked []plan.Change
	for i, fleet := range fleets {
		p, err := sightings[i].plan(ctx, fleet, options.plan)
		if err != nil {
			return err
		}
		changes, blocked = changes || !p.Empty(), append(blocked, p.Blocked()...)
		problems = append(problems, sessionProblems(p.Plan))
		p.poolPods = options.poolPods
		switch options.output {
		case outputJSON:
			documents.Plans = append(documents.Plans, p.Document())
		case outputMarkdown:
			printPlanMarkdown(env.stdout, p)
		case outputGitHub:
			printPlanGitHub(env.stdout, p)
		default:
			printPlan(env.stdout, p)
		}
		if options.saveTo != "" && p.Savable() {
			if err := savePlan(ctx, options.saveTo, p.Plan, fleet, sightings[i].target); err != nil {
				return err
			}
			fmt.Fprintf(env.stderr, "Saved: sandboxctl apply %s does exactly this.\n", options.saveTo)
		}
	}
	if options.output == outputJSON {
		if err := printJSON(env.stdout, documents); err != nil {
			return err
		}
	}
	if len(blocked) > 0 {
		problems = append(problems, blockedError(blocked, ""))
	}
	switch err := errors.Join(problems...); {
	case err != nil:
		return err
	case changes && options.detailed:
		return exitCode(2)
	}
	return nil
}

// savePlan saves a plan for the very cluster that it was made for.
func savePlan(ctx context.Context, path string, p plan.Plan, fleet rendered, target target) error {
	cluster, err := target.cluster.Identity(ctx)
	if err != nil {
		return err
	}
	content, err := p.Save(plan.SourceOf(fleet.Fleet, string(cluster)))
	if err != nil {
		return err
	}
	return writeWhole(path, content)
}

// writeWhole writes a file that only its owner can read, whole or not at all.
func writeWhole(path string, content []byte) error {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return nil
}
