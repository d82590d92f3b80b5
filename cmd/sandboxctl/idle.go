package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/agentpane/sandboxctl/reconcile"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/schema"
	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

// addStartFlag gives cmd the flag --start, with the sandboxes of the files as
// completions.
func addStartFlag(cmd *cobra.Command, options *reconcile.Options, files *fleetFlags) {
	cmd.Flags().StringArrayVar(&options.Start, "start", nil, "start this `SANDBOX` again, which was stopped as it was idle; may be repeated")
	_ = cmd.RegisterFlagCompletionFunc("start", // fails only for a flag that does not exist
		func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return files.names(""), cobra.ShellCompDirectiveNoFileComp
		})
}

// checkStart says what is wrong with the sandboxes that are to be started.
func checkStart(fleets []rendered, names []string) error {
	for _, name := range names {
		var known []string
		found := false
		for _, fleet := range fleets {
			for _, s := range fleet.Sandboxes {
				known = append(known, s.Name)
			}
			s, ok := fleet.Sandbox(name)
			if ok && s.State == schema.Stopped {
				return fmt.Errorf("--start: the file declares sandbox %s to be stopped: say state: running there", name)
			}
			found = found || ok
		}
		if !found {
			return fmt.Errorf("--start: %s", strings.TrimSpace(fmt.Sprintf("there is no sandbox %s. %s", diagnostic.Quote(name), diagnostic.DidYouMean(name, known))))
		}
	}
	return nil
}

// printActive says which sandboxes go on to run as it is not known whether they
// are idle.
func printActive(out io.Writer, p plan.Plan) {
	for _, active := range p.Active {
		if active.Problem != nil {
			fmt.Fprintf(out, "  sandbox %s goes on to run: whether it is idle is not known: %s\n", active.Sandbox, shortLine(active.Problem.Error()))
		}
	}
}
