package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

// groupOf makes of cmd a command that only holds others: by itself it shows its
// help, and with the name of none of them it fails.
func groupOf(cmd *cobra.Command, commands ...*cobra.Command) *cobra.Command {
	cmd.AddCommand(commands...)
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		var names []string
		for _, command := range commands {
			names = append(names, command.Name())
		}
		unknown := fmt.Sprintf("unknown command %q for %q. %s", args[0], cmd.CommandPath(), diagnostic.DidYouMean(args[0], names))
		return errors.New(strings.TrimSpace(unknown))
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	return cmd
}
