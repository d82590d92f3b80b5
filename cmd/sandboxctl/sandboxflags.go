package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/agentpane/sandboxctl/reconcile/connection"
	"github.com/agentpane/sandboxctl/reconcile/sandbox"
	"github.com/agentpane/sandboxctl/schema"
	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

// sandboxFlags are the flags of every command that works in sandboxes.
type sandboxFlags struct {
	files   fleetFlags
	connect connectFlags
}

func (f *sandboxFlags) add(cmd *cobra.Command, env environment) {
	f.files.add(cmd)
	f.connect.addFlags(cmd, env)
}

// addLong gives cmd the flag --file, where -f means something else.
func (f *fleetFlags) addLong(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.files, "file", nil,
		`fleet file, directory of them, or "-" for standard input; may be repeated (default `+schema.DefaultFile+`)`)
	_ = cmd.MarkFlagFilename("file", "yaml", "yml", "cue") // fails only for a flag that does not exist
}

// read reads the fleets without rendering them: what is there already does not
// need the file to be applicable, nor its warnings repeated.
func (f *fleetFlags) read(env environment) ([]*schema.Fleet, error) {
	fleets, found := schema.Load(f.files, env.stdin)
	found = slices.DeleteFunc(found, func(d diagnostic.Diagnostic) bool { return d.Severity != diagnostic.Error })
	if err := printFindings(env, found); err != nil {
		return nil, err
	}
	return fleets, nil
}

// readOne is for what works on a single fleet.
func (f *fleetFlags) readOne(env environment) (*schema.Fleet, error) {
	fleets, err := f.read(env)
	if err != nil {
		return nil, err
	}
	if len(fleets) != 1 {
		return nil, errors.New("this works on one fleet: name its file with --file")
	}
	return fleets[0], nil
}

// fleetOf returns the fleet that declares the sandbox; of a single fleet the
// cluster may know more sandboxes than its file.
func (f *fleetFlags) fleetOf(env environment, name string) (*schema.Fleet, error) {
	fleets, err := f.read(env)
	if err != nil {
		return nil, err
	}
	if len(fleets) == 1 {
		return fleets[0], nil
	}
	var declaring []*schema.Fleet
	var known []string
	for _, fleet := range fleets {
		if _, ok := fleet.Sandbox(name); ok {
			declaring = append(declaring, fleet)
		}
		for _, sandbox := range fleet.Sandboxes {
			known = append(known, sandbox.Name)
		}
	}
	switch len(declaring) {
	case 0:
		hint := diagnostic.DidYouMean(name, known)
		return nil, errors.New(strings.TrimSpace(fmt.Sprintf("no fleet has a sandbox %s. %s", diagnostic.Quote(name), hint)))
	case 1:
		return declaring[0], nil
	}
	return nil, fmt.Errorf("%s have a sandbox %s: name the file of the one that is meant with --file", count(len(declaring), "fleet"), diagnostic.Quote(name))
}

// client connects to the cluster of the fleet that has the sandbox.
func (f *sandboxFlags) client(env environment, name string) (*sandbox.Client, error) {
	fleet, err := f.files.fleetOf(env, name)
	if err != nil {
		return nil, err
	}
	client, _, err := f.clientOf(env, fleet)
	return client, err
}

func (f *sandboxFlags) clientOf(env environment, fleet *schema.Fleet) (*sandbox.Client, *connection.Cluster, error) {
	cluster, err := f.connect.connect(env, fleet.Cluster)
	if err != nil {
		return nil, nil, err
	}
	client, err := sandbox.New(cluster.Config, fleet)
	if err != nil {
		return nil, nil, err
	}
	return client.Noting(env.now), cluster, nil
}

// completeName completes the name of a sandbox from the files, where no
// argument is there yet.
func (f *sandboxFlags) completeName(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return f.names(""), cobra.ShellCompDirectiveNoFileComp
}

// names are the declared sandboxes as completions; none where the files have
// errors, as a shell's prompt is no place for them.
func (f *sandboxFlags) names(suffix string) []string {
	if slices.Contains(f.files.files, "-") { // the prompt's own input
		return nil
	}
	fleets, _ := schema.Load(f.files.files, strings.NewReader(""))
	var names []string
	for _, fleet := range fleets {
		for _, sandbox := range fleet.Sandboxes {
			names = append(names, cobra.CompletionWithDesc(sandbox.Name+suffix, "project "+sandbox.Project+", "+string(sandbox.State)))
		}
	}
	return names
}
