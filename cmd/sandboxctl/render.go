package main

import (
	"github.com/spf13/cobra"

	"github.com/agentpane/sandboxctl/render"
)

func newRenderCommand(env environment) *cobra.Command {
	var files fleetFlags
	cmd := &cobra.Command{
		Use:   "render",
		Short: "Print the objects of fleet files as YAML, without a cluster",
		Long: `Print the objects of fleet files as YAML, without a cluster, for those who apply them
by other means.`,
		Example: "  sandboxctl render -f sandboxes.yaml | kubectl apply --server-side -f -",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			fleets, err := files.load(env)
			if err != nil {
				return err
			}
			var objects []render.Object
			for _, fleet := range fleets {
				objects = append(objects, fleet.objects...)
			}
			content, err := render.YAML(objects)
			if err != nil {
				return err
			}
			_, err = env.stdout.Write(content)
			return err
		},
	}
	files.add(cmd)
	return cmd
}
