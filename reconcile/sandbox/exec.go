package sandbox

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/render"
)

// Command is a command to be run in a sandbox.
type Command struct {
	// Args are the program and its arguments. No shell sees them.
	Args []string
	// The streams can be nil. With a terminal, Stderr is: both go to Stdout.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// TTY has the command run on a terminal of these sizes.
	TTY   bool
	Sizes remotecommand.TerminalSizeQueue
	// Env is variables that the command gets beside the container's, as
	// NAME=VALUE. They are part of the request, as Args are, so a server that
	// logs requests logs them.
	Env []string
	// Dir is where the command starts; empty for the container's own folder.
	Dir string
	// Timeout is how long the command has; 0 is for ever. When it is over, the
	// command is ended in the sandbox as well.
	Timeout time.Duration
	// Mark names the command to End; empty for one that nobody ends.
	Mark string
}

var (
	errTimeout   = errors.New("the command's time was over")
	errNoProgram = errors.New("there is no such program")
)

// Exec runs a command in the container of a sandbox's pod and returns its exit
// code. The errors are failures of running it: ExecFailed, ExecTimeout,
// ExecConnectionFailed. A command whose time is over, or whose ctx has ended,
// is ended in the sandbox where that was asked for by a Timeout; without one it
// may go on to run there.
func (c *Client) Exec(ctx context.Context, pod *corev1.Pod, command Command) (exitCode int, err error) {
	if err := command.check(pod); err != nil {
		return 0, err
	}
	defer c.inUse(ctx, pod)()
	if command.Timeout <= 0 {
		return c.execWrapped(ctx, pod, command)
	}
	within, cancel := context.WithTimeoutCause(ctx, command.Timeout, errTimeout)
	defer cancel()
	command.Mark = rand.Text()
	exitCode, err = c.execWrapped(within, pod, command)
	if within.Err() == nil || err == nil {
		return exitCode, err
	}
	end := "it was ended"
	if endErr := c.End(context.WithoutCancel(ctx), pod, command.Mark); endErr != nil {
		end = "it may still run there: " + endErr.Error()
	}
	if context.Cause(within) != errTimeout {
		return 0, err
	}
	return 0, failure.New(failure.ExecTimeout, about(pod), "%s did not end within %s; %s", programOf(command), command.Timeout, end).
		With("command", programOf(command)).With("timeoutMs", command.Timeout.Milliseconds())
}

// exec runs a command as it stands.
func (c *Client) exec(ctx context.Context, pod *corev1.Pod, command Command) (exitCode int, err error) {
	var refused error
	executor, err := c.executor(pod, command, &refused)
	if err != nil {
		return 0, err
	}
	stdout, stderr := newGate(command.Stdout), newGate(command.Stderr)
	defer stdout.close()
	defer stderr.close()
	// What the library has to say about a stream that ends while input is still
	// being sent is no error, and not for this package to print.
	quiet := klog.NewContext(ctx, klog.Logger{})
	err = executor.StreamWithContext(quiet, remotecommand.StreamOptions{
		Stdin: command.Stdin, Stdout: stdout.writer(), Stderr: stderr.writer(), Tty: command.TTY, TerminalSizeQueue: command.Sizes,
	})
	if ended, ok := errors.AsType[exec.ExitError](err); ok && ended.Exited() {
		return ended.ExitStatus(), nil
	}
	if ctx.Err() != nil {
		return 0, givenUp(ctx, pod, command)
	}
	if err != nil && refused != nil && strings.Contains(err.Error(), "unable to upgrade connection") {
		err = refused // the same, in the server's own form
	}
	if err != nil {
		return 0, execError(err, pod, command)
	}
	return 0, c.confirm(ctx, pod, command)
}

// givenUp is the error of a command that ctx has ended: an interrupt is no failure.
func givenUp(ctx context.Context, pod *corev1.Pod, command Command) error {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ctx.Err()
	}
	return failure.New(failure.ExecTimeout, about(pod), "%s did not end in time", programOf(command)).
		Because(ctx.Err()).With("command", programOf(command))
}

// executor speaks WebSocket, or SPDY with servers and proxies that do not; in
// refused it leaves why WebSocket was not possible.
func (c *Client) executor(pod *corev1.Pod, command Command, refused *error) (remotecommand.Executor, error) {
	target := c.core.Get().Namespace(pod.Namespace).Resource("pods").Name(pod.Name).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{
			Container: render.ContainerName, Command: command.Args, TTY: command.TTY,
			Stdin: command.Stdin != nil, Stdout: command.Stdout != nil, Stderr: command.Stderr != nil,
		}, c.parameters).URL()
	webSocket, err := remotecommand.NewWebSocketExecutor(c.config, http.MethodGet, target.String())
	if err != nil {
		return nil, fmt.Errorf("setting up the connection: %w", err)
	}
	spdy, err := remotecommand.NewSPDYExecutor(c.config, http.MethodPost, target)
	if err != nil {
		return nil, fmt.Errorf("setting up the connection: %w", err)
	}
	return remotecommand.NewFallbackExecutor(webSocket, spdy, func(err error) bool {
		*refused = err
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
}

// confirm has a second look at a command that seems to have succeeded: a stream
// that breaks off because its container ends can look the same.
func (c *Client) confirm(ctx context.Context, pod *corev1.Pod, command Command) error {
	var now corev1.Pod
	err := c.core.Get().Namespace(pod.Namespace).Resource("pods").Name(pod.Name).Do(ctx).Into(&now)
	if err != nil && !apierrors.IsNotFound(err) {
		return failure.From(err, about(pod))
	}
	if err == nil && now.UID == pod.UID && containerID(&now) == containerID(pod) {
		return nil
	}
	return failure.New(failure.ExecFailed, about(pod), "the container ended while %s ran; whether it was done is not known", programOf(command)).
		With("command", programOf(command))
}

func containerID(pod *corev1.Pod) string {
	for _, status := range pod.Status.ContainerStatuses {
		if status.Name == render.ContainerName {
			return status.ContainerID
		}
	}
	return ""
}

// execError says by a code why a command was not run, or its end is not known.
func execError(err error, pod *corev1.Pod, command Command) error {
	if upgrade, ok := errors.AsType[*httpstream.UpgradeFailureError](err); ok {
		err = upgrade.Cause
	}
	program := programOf(command)
	if status := apierrors.APIStatus(nil); errors.As(err, &status) {
		if code := status.Status().Code; code == http.StatusForbidden || code == http.StatusUnauthorized || code == http.StatusNotFound {
			return failure.From(err, about(pod))
		}
		text := status.Status().Message
		if strings.Contains(text, "error dialing backend") {
			return connectionFailed(pod, text, err)
		}
		return failure.New(failure.ExecFailed, about(pod), "%s could not be run: %s", program, text).
			Because(err).With("command", program)
	}
	if _, isRequest := errors.AsType[*url.Error](err); isRequest || failure.CodeOf(err) != "" {
		return failure.From(err, about(pod))
	}
	text := err.Error()
	for _, broken := range []string{"error reading from error stream", "unable to upgrade", "bad handshake", "error dialing backend"} {
		if strings.Contains(text, broken) {
			return connectionFailed(pod, text, err)
		}
	}
	if network := failure.From(err, about(pod)); failure.CodeOf(network) == failure.ClusterUnreachable {
		return network
	}
	// The runtime's own words, of which the last say what matters.
	if strings.Contains(text, "executable file not found") || strings.Contains(text, "no such file or directory") {
		return failure.New(failure.ExecFailed, about(pod), "there is no program %s in the sandbox", program).
			WithHint("Commands are run without a shell: for pipes, variables and built-ins, run sh -c '…'.").
			Because(fmt.Errorf("%w: %w", errNoProgram, err)).With("command", program)
	}
	return failure.New(failure.ExecFailed, about(pod), "%s could not be run: %s", program, text).Because(err).With("command", program)
}

func connectionFailed(pod *corev1.Pod, text string, cause error) error {
	return failure.New(failure.ExecConnectionFailed, about(pod), "the connection to the sandbox failed: %s", text).
		Because(cause).With("podName", pod.Name)
}

// programOf is how messages name a command: its arguments may be secret.
func programOf(command Command) string {
	if len(command.Args) == 0 {
		return "the command"
	}
	return command.Args[0]
}

// gate lets output through until it is closed: the library may go on to write
// for a while after a command was given up.
type gate struct {
	out    io.Writer
	mutex  sync.Mutex // protects closed, and out from a late write
	closed bool
}

func newGate(out io.Writer) *gate { return &gate{out: out} }

// writer returns the gate where there is something behind it.
func (g *gate) writer() io.Writer {
	if g.out == nil {
		return nil
	}
	return g
}

func (g *gate) Write(content []byte) (int, error) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	if g.closed {
		return 0, io.ErrClosedPipe
	}
	return g.out.Write(content)
}

func (g *gate) close() {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.closed = true
}
