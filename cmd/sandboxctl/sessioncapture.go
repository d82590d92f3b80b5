package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// captureOptions are the flags of session capture, and its arguments.
type captureOptions struct {
	sessionFlags
	lines  int
	follow bool
	output outputFormat
}

// captureInfo is the JSON of session capture.
type captureInfo struct {
	FormatVersion string   `json:"formatVersion"`
	Sandbox       string   `json:"sandbox"`
	Session       string   `json:"session"`
	Lines         []string `json:"lines"`
}

func newSessionCaptureCommand(env environment) *cobra.Command {
	var options captureOptions
	const usage = "capture SANDBOX SESSION"
	cmd := &cobra.Command{
		Use:   usage,
		Short: "Print what a session shows",
		Long: `Print the last lines that a session shows, those that have scrolled away included. With
--follow, go on to print what comes, until the session ends or Ctrl-C. Following is for
programs that print lines; of one that draws on the whole screen, capture shows more.

What comes out of a sandbox is printed as plain text: without colours, and without anything
that could do something to your terminal.`,
		Example: `  sandboxctl session capture api agent
  sandboxctl session capture api agent:main.1 --lines 20
  sandboxctl session capture api agent --follow`,
		Args: atMost(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := options.take(args, usage); err != nil {
				return err
			}
			return runCapture(cmd.Context(), env, options)
		},
		ValidArgsFunction: options.complete(env),
	}
	options.add(cmd, env)
	options.output.addFlag(cmd)
	cmd.Flags().IntVar(&options.lines, "lines", 100, "how many lines, the last ones")
	cmd.Flags().BoolVar(&options.follow, "follow", false, "go on with what comes")
	return cmd
}

// captureLimit bounds what is read of a pane, however long its lines are.
const captureLimit = 16 << 20

func runCapture(ctx context.Context, env environment, options captureOptions) error {
	switch {
	case options.lines < 1 || options.lines > 1_000_000:
		return fmt.Errorf("--lines %d: want a number from 1 to 1000000", options.lines)
	case options.follow && options.output == outputJSON:
		return errors.New("--follow prints text: leave out --output json")
	}
	client, pod, err := options.pod(ctx, env)
	if err != nil {
		return err
	}
	var text string
	if err := options.audited(env, pod, "capture-pane", func() (err error) {
		if !options.follow {
			text, err = client.Capture(ctx, pod, options.target, options.lines, captureLimit)
			return err
		}
		err = client.Follow(ctx, pod, options.target, options.lines, &plainWriter{out: unfiltered(env.stdout)})
		if errors.Is(err, context.Canceled) { // by Ctrl-C, which is how it ends
			return nil
		}
		return err
	}); err != nil || options.follow {
		return err
	}
	var plain strings.Builder
	if _, err := io.WriteString(&plainWriter{out: &plain}, text); err != nil {
		return err
	}
	if options.output == outputJSON {
		lines := []string{}
		if plain.Len() > 0 {
			lines = strings.Split(strings.TrimSuffix(plain.String(), "\n"), "\n")
		}
		return printJSON(env.stdout, captureInfo{formatVersion, options.sandbox, options.target.String(), lines})
	}
	_, err = io.WriteString(env.stdout, plain.String())
	return err
}

// readLimited reads all there is, and a byte more than limit at most.
func readLimited(in io.Reader, limit int) ([]byte, error) {
	return io.ReadAll(io.LimitReader(in, int64(limit)+1))
}
