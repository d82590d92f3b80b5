package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/agentpane/sandboxctl/schema"
)

func newSchemaCommand(env environment) *cobra.Command {
	var asCUE bool
	cmd := &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of fleet files, for editors",
		Example: `  sandboxctl schema > sandboxes.schema.json
  sandboxctl schema --cue`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			text := schema.JSONSchema()
			if asCUE {
				text = schema.CUE()
			}
			_, err := io.WriteString(env.stdout, text)
			return err
		},
	}
	cmd.Flags().BoolVar(&asCUE, "cue", false, "print the CUE schema that it is made from")
	return cmd
}
