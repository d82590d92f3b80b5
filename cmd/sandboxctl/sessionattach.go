package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/sandbox"
	"github.com/agentpane/sandboxctl/reconcile/session"
)

func newSessionAttachCommand(env environment) *cobra.Command {
	var options sessionFlags
	const usage = "attach SANDBOX SESSION"
	cmd := &cobra.Command{
		Use:   usage,
		Short: "Show a session on this terminal, and type in it",
		Long: `Show a session on this terminal, and type in it. Others can do so at the same time.

tmux's own keys work: Ctrl-B and then d leaves the session, which goes on. What always
works, also when the connection hangs, is "~." after Enter, as in ssh; "~~" types a "~".

When the connection is lost, a line says so, and it is made again: for a minute, also while
the sandbox's container starts anew.`,
		Example: `  sandboxctl session attach api agent
  sandboxctl session attach api agent:notes`,
		Args: atMost(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := options.take(args, usage); err != nil {
				return err
			}
			return runAttach(cmd.Context(), env, options)
		},
		ValidArgsFunction: options.complete(env),
	}
	options.add(cmd, env)
	return cmd
}

func runAttach(ctx context.Context, env environment, options sessionFlags) error {
	terminal := terminalOf(env.stdin)
	if terminal == nil {
		return errors.New("attach needs a terminal, and standard input is none: session send and session capture do without")
	}
	client, pod, err := options.pod(ctx, env)
	if err != nil {
		return err
	}
	// A terminal can be closed without a word: so this is recorded beforehand.
	if err := options.audited(env, pod, "attach-session", func() error { return nil }); err != nil {
		return err
	}
	term, _ := env.lookupEnv("TERM")
	a := attachment{
		client: client, options: options, out: unfiltered(env.stdout), now: env.now,
		command: options.target.AttachCommand(session.TerminalFor(term)),
	}
	var attachErr error
	terminalErr := onTerminal(terminal, func(sizes *terminalSizes) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		a.sizes, a.keys = sizes, newKeyboard(terminal, cancel)
		attachErr = a.run(ctx, pod)
	})
	return errors.Join(attachErr, terminalErr)
}

// attachment is a terminal that shows a session, over one connection after
// another.
type attachment struct {
	client  *sandbox.Client
	options sessionFlags
	command []string
	out     io.Writer
	now     func() time.Time
	sizes   *terminalSizes
	keys    *keyboard
	// left are the marks of what may still show the session over connections
	// that were lost: tmux would go on to count it, and to keep to its size.
	left []string
}

// reconnectFor is how long a lost connection is tried to be made again.
const reconnectFor = time.Minute

// The pauses between two attempts.
const (
	firstPause = 250 * time.Millisecond
	lastPause  = 4 * time.Second
)

// run shows the session until it is left or ends, over as many connections as
// that takes.
func (a *attachment) run(ctx context.Context, pod *corev1.Pod) error {
	defer a.clean(context.WithoutCancel(ctx), nil)
	var lost time.Time // when the last connection was; zero before there was one
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		attached, err := a.once(ctx, pod)
		switch {
		case errors.Is(context.Cause(ctx), errDisconnected):
			a.say("disconnected from session %s, which goes on", a.options.target)
			return nil
		case err == nil || ctx.Err() != nil:
			return err
		case attached:
			lost, pause = a.now(), firstPause
			a.say("the connection to session %s is lost: %s. Connecting again; Ctrl-C gives up", a.options.target, shortLine(reasonOf(err)))
		case lost.IsZero() || a.now().Sub(lost) > reconnectFor:
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pod = nil // the sandbox may have another by now
	}
}

// once attaches, to the sandbox's present pod where none is given, and returns
// when that is over: with no error when the session was left or has ended. attached tells whether it has shown anything but why
// it could not attach.
func (a *attachment) once(ctx context.Context, pod *corev1.Pod) (attached bool, err error) {
	if pod == nil {
		if pod, err = a.client.FindRunning(ctx, a.options.sandbox); err != nil {
			return false, err
		}
	}
	a.clean(ctx, pod)
	mark := rand.Text()
	keys, sizes := a.keys.reader(), a.sizes.again()
	defer keys.close()
	defer sizes.end()
	shown := &tail{out: a.out}
	code, err := a.client.Exec(ctx, pod, sandbox.Command{Args: a.command, TTY: true, Mark: mark, Stdin: keys, Stdout: shown, Sizes: sizes})
	switch {
	case err != nil:
		a.left = append(a.left, mark)
		return shown.total > 0, err
	case code == session.AttachEnded:
		return true, nil
	case code == session.AttachFailed:
		return false, a.client.AttachError(pod, a.options.target, shown.text())
	}
	a.left = append(a.left, mark)
	return shown.total > 0, errors.New("the connection broke off")
}

// cleanTimeout bounds what is tidied up over a connection that may be broken.
const cleanTimeout = 5 * time.Second

// clean ends what is left of lost connections, in that pod or the present one.
// What cannot be ended is tried again the next time.
func (a *attachment) clean(ctx context.Context, pod *corev1.Pod) {
	if len(a.left) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, cleanTimeout)
	defer cancel()
	if pod == nil {
		var err error
		if pod, err = a.client.FindRunning(ctx, a.options.sandbox); err != nil {
			return
		}
	}
	a.left = slices.DeleteFunc(a.left, func(mark string) bool { return a.client.End(ctx, pod, mark) == nil })
}

// say writes a line of our own where the session was shown.
func (a *attachment) say(format string, args ...any) {
	fmt.Fprintf(a.out, "\r\n[sandboxctl: %s]\r\n", printable(fmt.Sprintf(format, args...)))
}

// reasonOf is what a failure says, without its code.
func reasonOf(err error) string {
	if failed, ok := errors.AsType[*failure.Error](err); ok {
		return failed.Message
	}
	return err.Error()
}

// tail passes on what is written to it, and keeps the last of it.
type tail struct {
	out   io.Writer
	last  []byte
	total int
}

const tailLength = 1024

func (t *tail) Write(content []byte) (int, error) {
	t.total += len(content)
	t.last = append(t.last, content[max(0, len(content)-tailLength):]...)
	t.last = t.last[max(0, len(t.last)-tailLength):]
	return t.out.Write(content)
}

func (t *tail) text() string { return strings.TrimSpace(strings.ReplaceAll(string(t.last), "\r", "")) }
