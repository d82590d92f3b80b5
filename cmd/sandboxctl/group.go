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
		for _, command := range cmd.Commands() {
			names = append(names, command.Name())
		}
		unknown := fmt.Sprintf("unknown command %q for %q. It has %s. %s",
			args[0], cmd.CommandPath(), strings.Join(names, ", "), diagnostic.DidYouMean(args[0], names))
		return errors.New(strings.TrimSpace(unknown))
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	return cmd
}

// refuseStrangers has the commands that the library brings along fail where they
// are asked for something that is not there.
func refuseStrangers(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, command := range root.Commands() {
		switch command.Name() {
		case "completion":
			groupOf(command)
		case "help":
			command.Args = func(_ *cobra.Command, args []string) error {
				found, rest, err := root.Find(args)
				if err == nil && found.HasSubCommands() {
					err = found.ValidateArgs(rest)
				}
				return err
			}
		}
	}
}
