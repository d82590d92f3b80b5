package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"

	"github.com/spf13/cobra"

	"github.com/agentpane/sandboxctl/reconcile/sandbox"
)

// logsOptions are the flags of logs, and its argument.
type logsOptions struct {
	sandboxFlags
	sandbox string
	tail    int64 // -1 is all
	log     sandbox.LogOptions
}

func newLogsCommand(env environment) *cobra.Command {
	var options logsOptions
	cmd := &cobra.Command{
		Use:   "logs SANDBOX",
		Short: "Show what a sandbox's container has printed",
		Long: `Show what a sandbox's container has printed: its first process and what that started.
What a tmux session shows, or exec prints, is not in it: see session capture.

On a terminal, control sequences are left out; into a file or a pipe, the log goes as
it is.`,
		Example: `  sandboxctl logs api --tail 20 -f
  sandboxctl logs api --previous --timestamps`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 && options.log.Follow {
				return errors.New("name one sandbox; -f is --follow here, and a fleet file is named by --file")
			}
			return exactlyOneSandbox(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			options.sandbox = args[0]
			return runLogs(cmd.Context(), env, options)
		},
		ValidArgsFunction: options.completeName(env),
	}
	// -f is --follow here, as in every other program that shows logs.
	options.files.addLong(cmd)
	options.connect.addFlags(cmd, env)
	cmd.Flags().BoolVarP(&options.log.Follow, "follow", "f", false, "go on with what will be printed")
	cmd.Flags().BoolVar(&options.log.Previous, "previous", false, "show the container before its last restart")
	cmd.Flags().Int64Var(&options.tail, "tail", -1, "begin with this many of the last lines; -1 is all")
	cmd.Flags().BoolVar(&options.log.Timestamps, "timestamps", false, "begin each line with its time")
	return cmd
}

func runLogs(ctx context.Context, env environment, options logsOptions) error {
	if options.tail < -1 {
		return fmt.Errorf("--tail %d: want a number of lines, or -1 for all", options.tail)
	}
	if options.tail >= 0 {
		options.log.Tail = &options.tail
	}
	client, err := options.client(env, options.sandbox)
	if err != nil {
		return err
	}
	pod, err := client.Find(ctx, options.sandbox)
	if err != nil {
		return err
	}
	out := unfiltered(env.stdout)
	show := func(out io.Writer) error { return client.Logs(ctx, pod, options.log, out) }
	if terminalOf(out) == nil {
		err = show(out)
	} else {
		err = throughFilter(out, show)
	}
	if options.log.Follow && errors.Is(err, context.Canceled) {
		return nil // there is no other way to end it
	}
	return err
}

// throughFilter has write write to out what is safe to show on a terminal.
func throughFilter(out io.Writer, write func(io.Writer) error) error {
	reader, writer := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := filterLines(out, reader)
		done <- errors.Join(err, reader.CloseWithError(err))
	}()
	err := write(writer)
	return errors.Join(err, writer.Close(), <-done)
}

// colours are the sequences that log lines have most; without them, the rest
// of such a line reads well.
var colours = regexp.MustCompile("\x1b\\[[0-9;]*m")

// filterLines copies lines, or as much of a line as fits, without what could
// move the cursor.
func filterLines(out io.Writer, in io.Reader) error {
	lines := bufio.NewReaderSize(in, 64<<10)
	for {
		line, err := lines.ReadSlice('\n')
		text := string(colours.ReplaceAll(line, nil))
		if n := len(text); n > 1 && text[n-2:] == "\r\n" {
			text = text[:n-2] + "\n"
		}
		if _, err := io.WriteString(out, printable(text)); err != nil {
			return err
		}
		if err == io.EOF {
			return nil
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}
