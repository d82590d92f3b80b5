package sandbox

import (
	"bytes"
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/agentpane/sandboxctl/reconcile/failure"
)

// markVariable is the environment variable that marks a command and all that it
// starts.
const markVariable = "SANDBOXCTL_EXEC"

// wrapScript runs a program with more environment ($4 and on, up to "--"), in a
// directory ($2). $1 marks it, so that it can be found and ended; $3 is printed
// where that directory cannot be entered. Like all scripts
// of this project it is fixed: what is the user's reaches it as parameters, and
// exec runs programs only.
const wrapScript = `if [ -n "$1" ]; then export ` + markVariable + `="$1"; fi
if [ -n "$2" ]; then cd -- "$2" 2>/dev/null || { printf %s "$3" >&2; exit 126; }; fi
shift 3
while [ "$1" != -- ]; do export "$1"; shift; done
shift
exec "$@"`

// endScript ends every process whose environment has the mark $1: it asks, waits
// some seconds, and then kills. It fails where one is left.
const endScript = `marked() {
  for p in /proc/[0-9]*; do
    if [ "${p#/proc/}" != $$ ] && grep -q "` + markVariable + `=$1" "$p/environ" 2>/dev/null && ! grep -q '^State:.Z' "$p/status" 2>/dev/null
    then echo "${p#/proc/}"; fi
  done
}
pids=$(marked "$1")
if [ -z "$pids" ]; then exit 0; fi
kill -TERM $pids 2>/dev/null
for i in 1 2 3 4 5 6 7 8 9 10; do
  sleep 0.3 2>/dev/null || sleep 1
  pids=$(marked "$1")
  if [ -z "$pids" ]; then exit 0; fi
done
kill -KILL $pids 2>/dev/null
sleep 1
[ -z "$(marked "$1")" ]`

// endTimeout bounds the end of a command: some seconds, and a slow connection.
const endTimeout = 20 * time.Second

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=`)

// check says what cannot be passed on.
func (c Command) check(pod *corev1.Pod) error {
	for _, word := range slices.Concat(c.Args, c.Env, []string{c.Dir}) {
		if strings.ContainsRune(word, 0) {
			return failure.New(failure.ExecFailed, about(pod), "a command, its environment and its directory cannot have a NUL character")
		}
	}
	for _, variable := range c.Env {
		if !variableName.MatchString(variable) {
			name, _, _ := strings.Cut(variable, "=")
			return failure.New(failure.ExecFailed, about(pod), "%q is not the name of an environment variable", name).
				WithHint("Write NAME=VALUE; a name has letters, digits and _, and no digit first.")
		}
	}
	return nil
}

// wrapped is the command in wrapScript, where it needs that; notice is what is
// printed where its directory cannot be entered.
func (c Command) wrapped(notice string) Command {
	if c.Mark == "" && c.Dir == "" && len(c.Env) == 0 {
		return c
	}
	c.Args = slices.Concat([]string{"/bin/sh", "-c", wrapScript, "sandboxctl", c.Mark, c.Dir, notice}, c.Env, []string{"--"}, c.Args)
	return c
}

// End ends the command with that mark, and all that it has started, whether its
// connection is still there or not.
func (c *Client) End(ctx context.Context, pod *corev1.Pod, mark string) error {
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	output, err := c.output(ctx, pod, Command{Args: []string{"/bin/sh", "-c", endScript, "sandboxctl", mark}}, outputLimit)
	if err == nil && output.Code != 0 {
		err = errors.New("it cannot be ended")
	}
	return err
}

// Output is what a command has printed, up to a number of bytes of each stream.
type Output struct {
	Stdout, Stderr string
	// Truncated: it printed more.
	Truncated bool
	Code      int
}

// outputLimit is enough for what is not expected to be long.
const outputLimit = 64 << 10

// Output runs a command and keeps at most limit bytes of what it prints to each
// of its streams. The command is not hindered by that: what is more is dropped.
func (c *Client) Output(ctx context.Context, pod *corev1.Pod, command Command, limit int) (Output, error) {
	return captured(command, limit, func(command Command) (int, error) { return c.Exec(ctx, pod, command) })
}

// output is Output for what nobody has asked for by itself: it is no use of the
// sandbox.
func (c *Client) output(ctx context.Context, pod *corev1.Pod, command Command, limit int) (Output, error) {
	return captured(command, limit, func(command Command) (int, error) { return c.exec(ctx, pod, command) })
}

func captured(command Command, limit int, run func(Command) (int, error)) (Output, error) {
	stdout, stderr := cappedBuffer{limit: limit}, cappedBuffer{limit: limit}
	command.Stdout, command.Stderr = &stdout, &stderr
	code, err := run(command)
	return Output{stdout.String(), stderr.String(), stdout.truncated || stderr.truncated, code}, err
}

// RefuseUser says why a command cannot be run as another user than the
// container's: Kubernetes has no way to, and root is what no sandbox gets.
func RefuseUser(pod *corev1.Pod, user string) error {
	if user != "root" && user != "0" {
		return failure.New(failure.ExecFailed, about(pod), "commands run as the user of the sandbox's container, and not as %q", user).
			WithHint("Leave --user out. The container's user is set in the file: pod: {securityContext: {runAsUser: …}}.")
	}
	return failure.New(failure.ExecAsRootRefused, about(pod), "a command in a sandbox is never run as root").
		WithHint("Put what needs root into the image.")
}

// cappedBuffer keeps the beginning of what is written to it, and takes the rest.
type cappedBuffer struct {
	limit     int // 4096 when it is 0
	kept      bytes.Buffer
	truncated bool
}

func (b *cappedBuffer) Write(content []byte) (int, error) {
	limit := b.limit
	if limit == 0 {
		limit = 4096
	}
	fits := min(len(content), max(0, limit-b.kept.Len()))
	b.kept.Write(content[:fits])
	b.truncated = b.truncated || fits < len(content)
	return len(content), nil
}

func (b *cappedBuffer) String() string { return b.kept.String() }
