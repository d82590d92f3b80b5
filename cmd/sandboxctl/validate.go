package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

// validation is the JSON of validate.
type validation struct {
	FormatVersion string           `json:"formatVersion"`
	Fleets        []validatedFleet `json:"fleets"`
	Warnings      []errorInfo      `json:"warnings"`
}

type validatedFleet struct {
	Name        string `json:"name"`
	File        string `json:"file"`
	Namespace   string `json:"namespace"`
	PodSecurity string `json:"podSecurity"`
	Sandboxes   int    `json:"sandboxes"`
	Objects     int    `json:"objects"`
}

func newValidateCommand(env environment) *cobra.Command {
	var files fleetFlags
	var output outputFormat
	cmd := &cobra.Command{
		Use:   "validate",
		Short: "Check fleet files, without a cluster",
		Long: `Check fleet files, without a cluster: their shape, what their values mean and how they
fit together, and that each pod passes the fleet's Pod Security profile.`,
		Example: "  sandboxctl validate -f sandboxes.yaml",
		Args:    noArguments,
		RunE: func(*cobra.Command, []string) error {
			fleets, found := readAs(files.files, env.stdin, validatedOf)
			if err := printFindings(env, found); err != nil {
				return err
			}
			if output == outputJSON {
				return printJSON(env.stdout, validation{FormatVersion: formatVersion, Fleets: fleets, Warnings: findingInfos(found)})
			}
			if output == outputGitHub {
				annotateFindings(env.stdout, found)
			}
			for _, f := range fleets {
				fmt.Fprintf(env.stdout, "%s: fleet %s is valid: %s, %s, every pod passes Pod Security profile %s\n",
					f.File, f.Name, count(f.Sandboxes, "sandbox", "sandboxes"), count(f.Objects, "object"), f.PodSecurity)
			}
			return nil
		},
	}
	files.add(cmd)
	output.addFlag(cmd, outputGitHub)
	return cmd
}

func validatedOf(fleet *schema.Fleet) (validatedFleet, diagnostic.List) {
	objects, found := render.Check(fleet)
	return validatedFleet{
		Name: fleet.Name, File: fleet.File().Name, Namespace: fleet.Namespace, PodSecurity: string(fleet.PodSecurity),
		Sandboxes: len(fleet.Sandboxes), Objects: objects,
	}, found
}
