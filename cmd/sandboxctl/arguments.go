package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/agentpane/sandboxctl/schema"
)

// noArguments checks the arguments of what takes none.
func noArguments(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case isFleetFile(args[0]) && cmd.Flags().Lookup("file") != nil:
		return namedByFile(cmd.CommandPath(), args[0])
	}
	return fmt.Errorf("%s takes no arguments: leave out %q", cmd.CommandPath(), args[0])
}

// atMost checks the arguments of what takes up to n.
func atMost(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return fmt.Errorf("leave out %q: %s", args[n], cmd.UseLine())
		}
		return nil
	}
}

// exactly checks the arguments of what takes n; want tells what they are.
func exactly(n int, want string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return fmt.Errorf("%s: %s", want, cmd.UseLine())
		}
		return nil
	}
}

// exactlyOneSandbox checks the arguments of what works in one sandbox.
func exactlyOneSandbox(cmd *cobra.Command, args []string) error {
	return exactly(1, "name one sandbox")(cmd, args)
}

// isFleetFile tells whether an argument looks like the file of a fleet.
func isFleetFile(argument string) bool {
	return slices.Contains([]string{".yaml", ".yml", ".cue"}, filepath.Ext(argument))
}

// namedByFile is the error of a fleet file that is an argument of the command.
func namedByFile(command, file string) error {
	return fmt.Errorf("a fleet file is named with -f: %s -f %s", command, file)
}

var errEmpty = errors.New("it is empty")

// place is the value of a flag that says where the cluster is. Empty, it would
// be passed over, and lead to another cluster than the one that was meant.
type place string

// Set, String and Type make it a flag value. Its type is what a string's is
// called, so that help shows it as one.
func (p *place) Set(text string) error {
	if text == "" {
		return errEmpty
	}
	*p = place(text)
	return nil
}

func (p *place) String() string { return string(*p) }
func (p *place) Type() string   { return "string" }

// flagError words what the library says of a flag's value in terms of Go.
func flagError(_ *cobra.Command, err error) error {
	invalid, ok := errors.AsType[*pflag.InvalidValueError](err)
	if !ok {
		return err
	}
	flag, text := invalid.GetFlag(), invalid.GetValue()
	switch {
	case errors.Is(err, errEmpty):
		return fmt.Errorf("--%s is empty: name one, or leave the flag out", flag.Name)
	case errors.Is(err, strconv.ErrRange):
		return fmt.Errorf("--%s %s: no number as large as that is possible", flag.Name, text)
	}
	switch flag.Value.Type() {
	case "duration":
		return fmt.Errorf("--%s %q is not a duration. %s", flag.Name, text, schema.CheckDuration(text))
	case "int", "int64":
		return fmt.Errorf("--%s %q: want a whole number", flag.Name, text)
	case "bool":
		return fmt.Errorf("--%s=%s: want true or false", flag.Name, text)
	}
	return err
}
