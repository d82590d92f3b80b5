package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// sendInfo is the JSON of session send and session kill.
type sendInfo struct {
	FormatVersion string `json:"formatVersion"`
	Sandbox       string `json:"sandbox"`
	Session       string `json:"session"`
	Done          bool   `json:"done"`
}

func newSessionSendCommand(env environment) *cobra.Command {
	var options sessionFlags
	var output outputFormat
	var enter bool
	const usage = "send SANDBOX SESSION [--enter] TEXT..."
	cmd := &cobra.Command{
		Use:   usage,
		Short: "Type text into a session",
		Long: `Type text into a session, exactly as it stands: nothing in it is a key's name, and no shell
of this program sees it. Several words are typed with a space between them. The text "-" is
what standard input has. --enter presses Enter afterwards; alone, it does only that.`,
		Example: `  sandboxctl session send api agent --enter "run the tests"
  sandboxctl session send api agent:main.1 --enter -- -v
  sandboxctl session send api agent - <prompt.txt`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := options.take(args, usage); err != nil {
				return err
			}
			text, err := sentText(env, args[2:], enter)
			if err != nil {
				return err
			}
			return runSend(cmd.Context(), env, options, text, enter, output)
		},
		ValidArgsFunction: options.complete(env),
	}
	options.add(cmd, env)
	output.addFlag(cmd)
	cmd.Flags().BoolVar(&enter, "enter", false, "press Enter after the text")
	return cmd
}

// sendLimit is how much can be typed at once.
const sendLimit = 1 << 20

// sentText is what the words stand for.
func sentText(env environment, words []string, enter bool) (string, error) {
	text := strings.Join(words, " ")
	if len(words) == 1 && words[0] == "-" {
		content, err := readLimited(env.stdin, sendLimit)
		if err != nil {
			return "", err
		}
		text = string(content)
	}
	switch {
	case text == "" && !enter:
		return "", errors.New("there is nothing to type: give a text, or --enter")
	case len(text) > sendLimit:
		return "", fmt.Errorf("the text has more than %d bytes: copy a file instead, with sandboxctl cp", sendLimit)
	}
	return text, nil
}

func runSend(ctx context.Context, env environment, options sessionFlags, text string, enter bool, output outputFormat) error {
	client, pod, err := options.pod(ctx, env)
	if err != nil {
		return err
	}
	send := func() error { return client.Send(ctx, pod, options.target, text, enter) }
	if err := options.audited(env, pod, "send-keys", send); err != nil {
		return err
	}
	if output == outputJSON {
		return printJSON(env.stdout, sendInfo{formatVersion, options.sandbox, options.target.String(), true})
	}
	return nil
}

func newSessionKillCommand(env environment) *cobra.Command {
	var options sessionFlags
	var output outputFormat
	const usage = "kill SANDBOX SESSION"
	cmd := &cobra.Command{
		Use:   usage,
		Short: "End a session, and all that runs in it",
		Long: `End a session, and all that runs in it, without asking. One that the file declares comes
back with the next apply that looks into the sandbox: apply --full does.`,
		Example: `  sandboxctl session kill api scratch`,
		Args:    atMost(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := options.take(args, usage); err != nil {
				return err
			}
			if options.target.Window != "" {
				return fmt.Errorf("a whole session is ended, and %q is a part of one", options.target)
			}
			client, pod, err := options.pod(cmd.Context(), env)
			if err != nil {
				return err
			}
			kill := func() error { return client.Kill(cmd.Context(), pod, options.target.Session) }
			if err := options.audited(env, pod, "kill-session", kill); err != nil {
				return err
			}
			if output == outputJSON {
				return printJSON(env.stdout, sendInfo{formatVersion, options.sandbox, options.target.String(), true})
			}
			fmt.Fprintf(env.stderr, "Session %s of sandbox %s has ended.\n", options.target, options.sandbox)
			return nil
		},
		ValidArgsFunction: options.complete(env),
	}
	options.add(cmd, env)
	output.addFlag(cmd)
	return cmd
}
