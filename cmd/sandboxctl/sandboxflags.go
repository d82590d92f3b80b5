package main

import (
	"errors"
	"fmt"
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

// read reads the fleets without rendering them: what is there already does not
// need the file to be applicable, nor its warnings repeated.
func (f *fleetFlags) read(env environment) ([]*schema.Fleet, error) {
	fleets, found := schema.Load(f.files, env.stdin)
	if err := printFindings(env, found.Errors()); err != nil {
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
	return single(fleets)
}

// single is the one fleet of those.
func single[T any](fleets []T) (one T, err error) {
	if len(fleets) != 1 {
		return one, errors.New("this works on one fleet: name its file with --file")
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

// addOne is add for what works on a single fleet.
func (f *sandboxFlags) addOne(cmd *cobra.Command, env environment) {
	f.files.addOne(cmd)
	f.connect.addFlags(cmd, env)
}

// client connects to the cluster of the fleet that has the sandbox, to use it.
func (f *sandboxFlags) client(env environment, name string) (*sandbox.Client, error) {
	fleet, err := f.files.fleetOf(env, name)
	if err != nil {
		return nil, err
	}
	client, _, err := f.clientOf(env, fleet)
	if err != nil {
		return nil, err
	}
	return client.Noting(env.now), nil
}

// clientOf connects to the fleet's cluster, to look.
func (f *sandboxFlags) clientOf(env environment, fleet *schema.Fleet) (*sandbox.Client, *connection.Cluster, error) {
	cluster, err := f.connect.connect(env, fleet.Cluster)
	if err != nil {
		return nil, nil, err
	}
	client, err := sandbox.New(cluster.Config, fleet)
	if err != nil {
		return nil, nil, err
	}
	return client, cluster, nil
}
