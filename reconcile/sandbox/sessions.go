package sandbox

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/session"
	"github.com/agentpane/sandboxctl/render"
)

// stateLimit is how much of what tmux reports is read: some ten thousand panes.
const stateLimit = 4 << 20

// Sessions reads by one exec what tmux reports in a sandbox. Its error is
// TmuxCreationFailed where the image has no tmux that is good enough.
func (c *Client) Sessions(ctx context.Context, pod *corev1.Pod) (session.State, error) {
	output, err := c.output(ctx, pod, Command{Args: session.ReadCommand()}, stateLimit)
	if err != nil {
		return session.State{}, tmuxMissing(err, pod)
	}
	if err := tmuxError(output, pod); err != nil {
		return session.State{}, err
	}
	if output.Truncated {
		return session.State{}, failure.New(failure.ExecFailed, about(pod), "tmux reports more in %s than can be", nameOf(pod))
	}
	state, err := session.Parse(output.Stdout)
	if err != nil {
		return session.State{}, failure.New(failure.TmuxCreationFailed, about(pod), "the sessions of %s cannot be had: %s", nameOf(pod), err)
	}
	return state, nil
}

// ChangeSessions has tmux run a command file, by one exec. A file that arrives
// cut off is a syntax error, as all of it stands in one block, and is not run at
// all. What it says against a line of it is the error; that none was run, as
// the state was another by then, is a PlanStale.
func (c *Client) ChangeSessions(ctx context.Context, pod *corev1.Pod, file string) error {
	output, err := c.output(ctx, pod, Command{Args: session.ChangeCommand(), Stdin: strings.NewReader(file)}, outputLimit)
	if err != nil {
		return tmuxMissing(err, pod)
	}
	if strings.Contains(output.Stdout, session.StaleText) {
		return failure.New(failure.PlanStale, about(pod), "the sessions of %s have changed since the plan was made", nameOf(pod)).
			WithHint("Plan and apply again.")
	}
	return tmuxError(output, pod)
}

// Confirmed tells whether the pod says that its container, in its present life,
// has the wanted sessions.
func Confirmed(pod *corev1.Pod, want session.Desired) bool {
	return pod.Annotations[session.NoteAnnotation] == session.Note{Hash: want.Hash(), Container: ContainerOf(pod)}.Text()
}

// ContainerOf is the life that the pod's container is in.
func ContainerOf(pod *corev1.Pod) session.Container {
	for _, status := range pod.Status.ContainerStatuses {
		if status.Name == render.ContainerName {
			return session.Container{ID: status.ContainerID, Restarts: int64(status.RestartCount)}
		}
	}
	return session.Container{}
}

// nameOf is what people call a sandbox's pod.
func nameOf(pod *corev1.Pod) string { return "sandbox " + pod.Labels[render.SandboxIDLabel] }

// noProgram is the exit code of shells that do not find a program.
const noProgram = 127

// tmuxMissing says that a program which could not be started was tmux, or the
// shell that starts it.
func tmuxMissing(err error, pod *corev1.Pod) error {
	if errors.Is(err, errNoProgram) {
		return noTmux(pod).Because(err)
	}
	return err
}

// tmuxNotRun is tmuxMissing for a tmux that gets input: while that is on its way,
// the server can drop the connection before it has said that there is no such
// program. So that is asked again, without input.
func (c *Client) tmuxNotRun(ctx context.Context, err error, pod *corev1.Pod) error {
	if failure.CodeOf(err) == failure.ExecConnectionFailed {
		if _, asked := c.TmuxVersion(ctx, pod); errors.Is(asked, errNoProgram) {
			return asked
		}
	}
	return tmuxMissing(err, pod)
}

// TmuxVersion is what tmux says of itself in a sandbox, as "tmux 3.3a". Its error
// is TmuxCreationFailed where the image has none, or one that does not run.
func (c *Client) TmuxVersion(ctx context.Context, pod *corev1.Pod) (string, error) {
	const long = 100 // of what somebody else's image prints
	output, err := c.output(ctx, pod, Command{Args: []string{"tmux", "-V"}}, long)
	if err != nil {
		return "", tmuxMissing(err, pod)
	}
	if output.Code != 0 {
		return "", failure.New(failure.TmuxCreationFailed, about(pod), "tmux -V exits with code %d in %s", output.Code, nameOf(pod))
	}
	return strings.TrimSpace(output.Stdout), nil
}

func noTmux(pod *corev1.Pod) *failure.Error {
	return failure.New(failure.TmuxCreationFailed, about(pod), "the image of %s has no tmux", nameOf(pod)).
		WithHint("Sessions need tmux 3.2 or newer and a POSIX shell in the image; everything else works without.")
}

// tmuxError says what tmux said against its task. That no server runs is no
// error: there are no sessions then.
func tmuxError(output Output, pod *corev1.Pod) error {
	said := strings.TrimSpace(output.Stderr)
	switch {
	case output.Code == 0 && said == "" || noServer(said):
		return nil
	case output.Code == noProgram:
		return noTmux(pod)
	}
	err := failure.New(failure.TmuxCreationFailed, about(pod), "tmux failed in %s: %s", nameOf(pod), strings.Join(strings.Split(said, "\n"), "; "))
	if strings.Contains(said, "Read-only file system") || strings.Contains(said, "error creating") {
		err = err.WithHint("tmux needs a folder that it can write its socket to: /tmp, or the one that TMUX_TMPDIR names in the sandbox's env.")
	}
	return err
}

// noServer tells by what tmux said whether it has nothing to connect to.
func noServer(said string) bool {
	return strings.HasPrefix(said, "no server running") ||
		strings.HasPrefix(said, "error connecting") && (strings.Contains(said, "No such file") || strings.Contains(said, "refused"))
}

// notThere tells by what tmux said whether what was named is not there.
func notThere(said string) bool {
	return noServer(said) || strings.Contains(said, "can't find") || strings.Contains(said, "no sessions")
}

// tmux runs a command of tmux on one session. Its error is TmuxSessionNotFound
// where there is none of that name.
func (c *Client) tmux(ctx context.Context, pod *corev1.Pod, name string, command Command, limit int) (Output, error) {
	command.Args = append([]string{"tmux", "-u"}, command.Args...)
	output, err := c.Output(ctx, pod, command, limit)
	if err != nil {
		return output, tmuxMissing(err, pod)
	}
	said := strings.TrimSpace(output.Stderr)
	if output.Code != 0 && notThere(said) {
		return output, SessionNotFound(pod, name, said)
	}
	return output, tmuxError(output, pod)
}

// SessionNotFound is the failure that a session, or what was named in it, is not
// there, with tmux's words where it has any.
func SessionNotFound(pod *corev1.Pod, name, said string) error {
	text := ""
	if strings.Contains(said, "can't find window") || strings.Contains(said, "can't find pane") {
		text = ": " + said
	}
	return failure.New(failure.TmuxSessionNotFound, about(pod), "%s has no session %s%s", nameOf(pod), name, text).
		With("sessionName", name)
}

// AttachError says by what tmux said why it could not show a session.
func (c *Client) AttachError(pod *corev1.Pod, target session.Target, said string) error {
	switch {
	case strings.Contains(said, "not found"):
		return noTmux(pod)
	case notThere(said):
		return SessionNotFound(pod, target.String(), said)
	}
	return tmuxError(Output{Stderr: said, Code: session.AttachFailed}, pod)
}

// Send types text into a pane, byte by byte as it is, and Enter after it where
// that is asked for. A pane whose command has ended takes none: TmuxSessionNotFound.
func (c *Client) Send(ctx context.Context, pod *corev1.Pod, target session.Target, text string, enter bool) error {
	found, err := c.tmux(ctx, pod, target.String(), Command{Args: target.FindCommand()}, outputLimit)
	if err != nil {
		return err
	}
	pane := strings.TrimSpace(found.Stdout)
	if strings.HasPrefix(pane, "%") {
		buffer := "sandboxctl-" + rand.Text()
		sent, err := c.tmux(ctx, pod, target.String(), Command{
			Args: session.SendCommand(pane, buffer, text != "", enter), Stdin: strings.NewReader(text),
		}, outputLimit)
		if err != nil {
			return err
		}
		if pane = strings.TrimSpace(sent.Stdout); pane == "" {
			return nil
		}
	}
	if pane == session.DeadText {
		return failure.New(failure.TmuxSessionNotFound, about(pod), "the command in %s of %s has ended: nothing can be typed into it", target, nameOf(pod)).
			With("sessionName", target.String())
	}
	return failure.New(failure.ExecFailed, about(pod), "tmux does not say which pane %s of %s is", target, nameOf(pod))
}

// Capture returns what a pane shows, with what has scrolled away, as the last
// lines, without control sequences.
func (c *Client) Capture(ctx context.Context, pod *corev1.Pod, target session.Target, lines, limit int) (string, error) {
	output, err := c.tmux(ctx, pod, target.String(), Command{Args: target.CaptureCommand(lines)}, limit)
	return session.LastLines(output.Stdout, lines), err
}

// Kill ends a session, and all that runs in it.
func (c *Client) Kill(ctx context.Context, pod *corev1.Pod, name string) error {
	_, err := c.tmux(ctx, pod, name, Command{Args: session.Target{Session: name}.KillCommand()}, outputLimit)
	return err
}

// Follow writes what a pane prints from now on, as it comes, until the session
// ends or ctx does. Before that it writes what Capture would return.
func (c *Client) Follow(ctx context.Context, pod *corev1.Pod, target session.Target, lines int, out io.Writer) error {
	follower := session.NewFollower(target, lines, out)
	defer follower.Close()
	var words cappedBuffer
	code, err := c.Exec(ctx, pod, Command{
		Args: append([]string{"tmux", "-u"}, target.FollowCommand()...), Stdin: follower.Input(), Stdout: follower, Stderr: &words,
	})
	if followErr := follower.Err(); followErr != nil && ctx.Err() == nil {
		return followErr
	}
	if err != nil {
		return c.tmuxNotRun(ctx, err, pod)
	}
	said := strings.TrimSpace(words.String() + follower.Said())
	if code != 0 && notThere(said) {
		return SessionNotFound(pod, target.String(), said)
	}
	return tmuxError(Output{Stderr: said, Code: code}, pod)
}
