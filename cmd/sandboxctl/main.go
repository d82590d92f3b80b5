// Command sandboxctl keeps a Kubernetes cluster's AI-agent sandboxes as one
// file says. This package holds the commands, one file each, and everything
// that prints; what they do lives in schema, render and reconcile.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/charmbracelet/colorprofile"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// environment is what a command gets from outside; nothing below reads the
// process's own streams, clock or variables.
type environment struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	now            func() time.Time
	lookupEnv      func(name string) (value string, set bool)
	// width is the terminal's, 0 where there is none; interactive tells
	// whether somebody is there to answer a question.
	width       int
	interactive bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once, as if none had been caught.
	context.AfterFunc(ctx, stop)
	width, _, err := term.GetSize(int(os.Stderr.Fd()))
	if err != nil {
		width = 0
	}
	// These drop the colours that the terminal cannot show, and all of them
	// where there is none, or NO_COLOR or TERM=dumb is set.
	stdout, stderr := colorprofile.NewWriter(os.Stdout, os.Environ()), colorprofile.NewWriter(os.Stderr, os.Environ())
	code := run(ctx, os.Args[1:], environment{
		stdin: os.Stdin, stdout: stdout, stderr: stderr, now: time.Now, lookupEnv: os.LookupEnv,
		width: width, interactive: err == nil && term.IsTerminal(int(os.Stdin.Fd())),
	})
	os.Exit(code)
}

// run runs the command line and returns the exit code: 0 done, 1 failed, and
// what a command says otherwise by an exitCode.
func run(ctx context.Context, args []string, env environment) int {
	stdout := &noting{Writer: env.stdout}
	env.stdout = stdout
	root := newRootCommand(env)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	code, ended := errors.AsType[exitCode](err)
	switch {
	case stdout.err == nil && ended:
		return int(code)
	case stdout.err != nil && ended: // half a result is not what the code stands for
		err = stdout.err
	case stdout.err != nil && !errors.Is(err, stdout.err):
		err = errors.Join(err, stdout.err)
	}
	if err == nil {
		return 0
	}
	if !stdout.written { // half a result is none with an error after it
		err = errors.Join(err, printFailed(stdout, cmd, err))
	}
	printError(env.stderr, err)
	return 1
}

func newRootCommand(env environment) *cobra.Command {
	root := &cobra.Command{
		Use:   "sandboxctl",
		Short: "AI-agent sandboxes on Kubernetes, kept as one file says",
		Long: `sandboxctl keeps a Kubernetes cluster's AI-agent sandboxes as one file says.

Sandboxes, warm pools, egress allowlists, the Pod Security profile and tmux
sessions are declared in sandboxes.yaml.`,
		Version:       readVersion().String(),
		SilenceErrors: true, // run prints the error
		SilenceUsage:  true,
	}
	root.Flags().Bool("version", false, "print the version of sandboxctl") // the library's own has a -v, too
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	root.SetIn(env.stdin)
	root.SetOut(env.stdout)
	root.SetErr(env.stderr)
	root.AddCommand(
		newApplyCommand(env),
		newAuditCommand(env),
		newClaimCommand(env),
		newClusterCommand(env),
		newContextsCommand(env),
		newCpCommand(env),
		newDestroyCommand(env),
		newDoctorCommand(env),
		newEgressGateCommand(env),
		newEgressGatewayCommand(env),
		newExecCommand(env),
		newExplainCommand(env),
		newInitCommand(env),
		newLogsCommand(env),
		newNamespacesCommand(env),
		newPlanCommand(env),
		newPoolCommand(env),
		newReleaseCommand(env),
		newRenderCommand(env),
		newSchemaCommand(env),
		newSessionCommand(env),
		newStatusCommand(env),
		newTopCommand(env),
		newValidateCommand(env),
		newVersionCommand(env),
		newWatchCommand(env),
	)
	refuseStrangers(root)
	return root
}
