package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/agentpane/sandboxctl/examples"
	"github.com/agentpane/sandboxctl/schema"
)

// schemaFile is what init calls the JSON Schema; the first line of the file
// that init writes names it for editors.
const schemaFile = "sandboxes.schema.json"

func newInitCommand(env environment) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "init [DIRECTORY]",
		Short: "Write a commented fleet file, and its JSON Schema for editors",
		Example: `  sandboxctl init
  sandboxctl init ops/sandboxes`,
		Args: atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			dir := "."
			if len(args) == 1 {
				dir = args[0]
			}
			return runInit(env, dir, force)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "write over files that are there")
	return cmd
}

func runInit(env environment, dir string, force bool) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	files := []struct{ name, content string }{
		{schema.DefaultFile, examples.Starter()},
		{schemaFile, schema.JSONSchema()},
	}
	if !force { // nothing is written where anything would be lost
		for _, file := range files {
			path := filepath.Join(dir, file.name)
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%s is there already: --force writes over it", path)
			}
		}
	}
	for _, file := range files {
		path := filepath.Join(dir, file.name)
		if err := os.WriteFile(path, []byte(file.content), 0o644); err != nil {
			return err
		}
		fmt.Fprintln(env.stdout, "wrote", path)
	}
	next := "sandboxctl plan"
	if path := filepath.Join(dir, schema.DefaultFile); path != schema.DefaultFile {
		next += " -f " + path
	}
	fmt.Fprintf(env.stdout, "Edit it, then run %s.\n", next)
	return nil
}
