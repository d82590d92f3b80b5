package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/sandbox"
	"github.com/agentpane/sandboxctl/render"
)

// execOptions are the flags of exec, and its arguments.
type execOptions struct {
	sandboxFlags
	audit      auditFlags
	sandbox    string
	command    []string
	stdin, tty bool
	timeout    time.Duration
	env        []string
	dir, user  string
}

func newExecCommand(env environment) *cobra.Command {
	var options execOptions
	cmd := &cobra.Command{
		Use:   "exec SANDBOX [flags] -- COMMAND [ARG...]",
		Short: "Run a command in a sandbox",
		Long: `Run a command in a sandbox. The program gets its arguments as they stand: there is no
shell in between. What it prints is passed on as it is into files and pipes; a terminal gets
it as plain text, unless the command runs on it (-t). Its exit code is the exit code of
sandboxctl; 1 is also the code of a command that could not be run, which an error says.

A command whose time is over (--timeout) is ended in the sandbox, with all that it has
started. --env, --cwd and --timeout need a POSIX shell in the image. What --env sets is part
of the request, which the API server may log: secrets belong into the file's envFrom.

Commands run as the sandbox's own user, never as root.`,
		Example: `  sandboxctl exec api -- git status
  sandboxctl exec api -it -- bash
  sandboxctl exec api --cwd /workspace/api --env CI=1 --timeout 10m -- npm test
  sandboxctl exec api -- sh -c 'npm test | tail -5'
  sandboxctl exec api -i -- sh -c 'cat >notes.txt' <notes.txt`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if options.sandbox, options.command, err = splitCommand(args, cmd.ArgsLenAtDash()); err != nil {
				return err
			}
			return options.audit.during(env, &options.connect, func() error { return runExec(cmd.Context(), env, options) })
		},
		ValidArgsFunction: options.completeName(env),
	}
	options.add(cmd, env)
	options.audit.add(cmd)
	cmd.Flags().BoolVarP(&options.stdin, "stdin", "i", false, "pass standard input to the command")
	cmd.Flags().BoolVarP(&options.tty, "tty", "t", false, "run the command on a terminal, this one; implies --stdin")
	cmd.Flags().StringArrayVarP(&options.env, "env", "e", nil, "set this variable for the command, as `NAME=VALUE`; may be repeated")
	cmd.Flags().StringVarP(&options.dir, "cwd", "w", "", "where the command starts (default the container's own folder)")
	cmd.Flags().StringVarP(&options.user, "user", "u", "", "refused: commands run as the sandbox's own user")
	_ = cmd.Flags().MarkHidden("user") // it is there to say why it is not; fails only for a flag that does not exist
	cmd.Flags().DurationVar(&options.timeout, "timeout", 0, "how long the command has (default for ever)")
	return cmd
}

// splitCommand splits the arguments of exec. Before dash of them there was a
// "--"; it is -1 where there was none.
func splitCommand(args []string, dash int) (name string, command []string, err error) {
	const usage = "sandboxctl exec SANDBOX -- COMMAND [ARG...]"
	switch {
	case dash < 0 && len(args) > 1:
		return "", nil, errors.New("put -- before the command, so that its flags are its own: " + usage)
	case len(args) == 0 || dash == 0:
		return "", nil, errors.New("name the sandbox: " + usage)
	case dash > 1:
		return "", nil, errors.New("name one sandbox: " + usage)
	case len(args) == 1:
		return "", nil, errors.New("name the command: " + usage)
	}
	return args[0], args[1:], nil
}

func runExec(ctx context.Context, env environment, options execOptions) error {
	if options.timeout < 0 {
		return errors.New("--timeout: want more than nothing, as 30s")
	}
	if options.tty { // else nobody could so much as interrupt the command
		options.stdin = true
	}
	if options.stdin && slices.Contains(options.files.files, "-") {
		return errors.New("--file - and --stdin both read standard input: choose one")
	}
	command := sandbox.Command{
		Args: options.command, Stdout: shown(env.stdout), Stderr: shown(env.stderr), Timeout: options.timeout,
		Env: options.env, Dir: options.dir,
	}
	if options.stdin {
		command.Stdin = env.stdin
	}
	if options.tty && terminalOf(env.stdin) == nil {
		return errors.New("--tty needs a terminal, and standard input is none: leave it out")
	}
	client, err := options.client(env, options.sandbox)
	if err != nil {
		return err
	}
	pod, err := client.FindRunning(ctx, options.sandbox)
	if err != nil {
		return err
	}
	recorder := options.connect.recorder
	if options.user != "" {
		err := sandbox.RefuseUser(pod, options.user)
		if failure.CodeOf(err) == failure.ExecAsRootRefused {
			return errors.Join(err, recorder.RootAttempt(aboutPod(pod), command.Args))
		}
		return err
	}
	if err := recorder.Ready(); err != nil {
		return err
	}
	execute := func() error {
		begun := env.now()
		code, err := client.Exec(ctx, pod, command)
		recorded := recorder.Exec(aboutPod(pod), command.Args, code, env.now().Sub(begun), err)
		if recorded != nil {
			return errors.Join(err, recorded)
		}
		return ended(code, err)
	}
	added := render.EnvOf(pod.Annotations)
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(added))) {
		command.Env = slices.Insert(command.Env, 0, name+"="+added[name]) // those of --env come after, and count
	}
	if !options.tty {
		return execute()
	}
	command.TTY, command.Stdout, command.Stderr = true, unfiltered(env.stdout), nil
	var commandErr error
	terminalErr := onTerminal(terminalOf(env.stdin), func(sizes *terminalSizes) {
		command.Sizes = sizes
		commandErr = execute()
	})
	return errors.Join(commandErr, terminalErr)
}

// ended makes the command's exit code sandboxctl's own.
func ended(code int, err error) error {
	if err == nil && code != 0 {
		return exitCode(code)
	}
	return err
}
