package main

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/agentpane/sandboxctl/reconcile/sandbox"
	"github.com/agentpane/sandboxctl/reconcile/session"
	"github.com/agentpane/sandboxctl/schema"
)

func newSessionCommand(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "session",
		Short: "Work with the tmux sessions of sandboxes",
		Long: `Work with the tmux sessions of sandboxes: those that the file declares, which apply keeps
as it says, and those that people make.

A session is named as tmux names it: SESSION, or SESSION:WINDOW for one of its windows, or
SESSION:WINDOW.PANE. Without a window or pane, those that the session shows are meant.`,
	}
	return groupOf(cmd,
		newSessionAttachCommand(env), newSessionCaptureCommand(env), newSessionKillCommand(env),
		newSessionLsCommand(env), newSessionSendCommand(env),
	)
}

// sessionFlags are the flags of every command that works on one session, and
// its arguments.
type sessionFlags struct {
	sandboxFlags
	audit   auditFlags
	sandbox string
	target  session.Target
}

func (f *sessionFlags) add(cmd *cobra.Command, env environment) {
	f.sandboxFlags.add(cmd, env)
	f.audit.add(cmd)
}

// take reads the arguments of a command that has that usage.
func (f *sessionFlags) take(args []string, usage string) (err error) {
	switch {
	case len(args) == 0:
		return errors.New("name the sandbox, and its session: sandboxctl session " + usage)
	case len(args) == 1:
		return errors.New("name the session: sandboxctl session " + usage)
	}
	f.sandbox = args[0]
	f.target, err = session.ParseTarget(args[1])
	return err
}

// pod connects, and returns the sandbox's pod.
func (f *sessionFlags) pod(ctx context.Context, env environment) (*sandbox.Client, *corev1.Pod, error) {
	client, err := f.client(env, f.sandbox)
	if err != nil {
		return nil, nil, err
	}
	pod, err := client.FindRunning(ctx, f.sandbox)
	return client, pod, err
}

// audited does something to the session by that tmux command, and records it.
// What cannot be recorded is not begun.
func (f *sessionFlags) audited(env environment, pod *corev1.Pod, command string, do func() error) error {
	return f.audit.during(env, &f.connect, func() error {
		if err := f.connect.recorder.Ready(); err != nil {
			return err
		}
		err := do()
		return errors.Join(err, f.connect.recorder.Session(aboutPod(pod), f.target.String(), []string{command}, err))
	})
}

// complete completes a sandbox, and then one of its sessions.
func (f *sessionFlags) complete(env environment) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		switch len(args) {
		case 0:
			return f.names(cmd.Context(), env, ""), cobra.ShellCompDirectiveNoFileComp
		case 1:
			ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
			defer cancel()
			declared := f.sessionNames(args[0])
			return append(declared, f.otherSessions(ctx, env, args[0], declared)...), cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

// otherSessions are the sessions that run in a sandbox, but for those declared
// ones, as completions; none where it does not answer before ctx ends, as a
// shell's prompt is no place for errors.
func (f *sandboxFlags) otherSessions(ctx context.Context, env environment, name string, declared []cobra.Completion) []cobra.Completion {
	if slices.Contains(f.files.files, "-") {
		return nil
	}
	env.stderr = io.Discard
	client, err := f.client(env, name)
	if err != nil {
		return nil
	}
	pod, err := client.FindRunning(ctx, name)
	if err != nil {
		return nil
	}
	state, err := client.Sessions(ctx, pod)
	if err != nil {
		return nil
	}
	var names []cobra.Completion
	for _, s := range state.Sessions {
		known := slices.ContainsFunc(declared, func(c cobra.Completion) bool { return c == s.Name || strings.HasPrefix(c, s.Name+"\t") })
		target, err := session.ParseTarget(s.Name)
		if known || err != nil || target.Session != s.Name || s.Name != shortLine(s.Name) {
			continue // what a prompt must not show is no name to choose either
		}
		var windows []string
		for _, w := range s.Windows {
			windows = append(windows, shortLine(w.Name))
		}
		names = append(names, cobra.CompletionWithDesc(s.Name, strings.Join(windows, ", ")))
	}
	return names
}

// sessionNames are the declared sessions of a sandbox as completions.
func (f *sandboxFlags) sessionNames(name string) []string {
	if slices.Contains(f.files.files, "-") {
		return nil
	}
	fleets, _ := schema.Load(f.files.files, strings.NewReader(""))
	var names []string
	for _, fleet := range fleets {
		declared, _ := fleet.Sandbox(name)
		for _, s := range declared.Sessions {
			var windows []string
			for _, w := range s.Windows {
				windows = append(windows, w.Name)
			}
			names = append(names, cobra.CompletionWithDesc(s.Name, strings.Join(windows, ", ")))
		}
	}
	return names
}
