package sandbox

import (
	"cmp"
	"context"
	"crypto/rand"
	"io"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/agentpane/sandboxctl/reconcile/failure"
)

// execWrapped runs a command in wrapScript, where it needs that.
func (c *Client) execWrapped(ctx context.Context, pod *corev1.Pod, command Command) (exitCode int, err error) {
	if command.Dir == "" {
		return c.exec(ctx, pod, command.wrapped(""))
	}
	notice := command.noticeFolder()
	exitCode, err = c.exec(ctx, pod, command.wrapped(notice.word))
	missing, flushErr := notice.end()
	if missing && err == nil {
		return 0, failure.New(failure.ExecFailed, about(pod), "there is no folder %s in the sandbox", command.Dir).
			WithHint("It is not there, is no folder, or is closed to the sandbox's user.").With("command", programOf(command))
	}
	return exitCode, cmp.Or(err, flushErr)
}

// noticeFolder has the command's output looked through for the notice that its
// folder is missing.
func (c *Command) noticeFolder() *folderNotice {
	stream := &c.Stderr
	if c.TTY { // there is no other stream
		stream = &c.Stdout
	}
	// No program begins what it prints with such a character, so none is held back.
	notice := &folderNotice{word: "\x01" + rand.Text(), out: *stream}
	*stream = notice
	return notice
}

// folderNotice passes a command's output on, but for the notice that there is no
// such folder, which is all of the output then. It is a word that nobody can know
// beforehand: an exit code could be the program's own.
type folderNotice struct {
	word string
	out  io.Writer // nil where nobody wants it
	// held is the beginning of the output as long as it may be the notice.
	held  string
	other bool // it is something else
}

func (n *folderNotice) Write(content []byte) (int, error) {
	if n.other {
		return len(content), n.pass(content)
	}
	n.held += string(content)
	if strings.HasPrefix(n.word, n.held) {
		return len(content), nil
	}
	n.other = true
	return len(content), n.pass([]byte(n.held))
}

func (n *folderNotice) pass(content []byte) error {
	if n.out == nil {
		return nil
	}
	_, err := n.out.Write(content)
	return err
}

// end is called when there is no more output; it tells whether that was the notice.
func (n *folderNotice) end() (missing bool, err error) {
	if n.other || n.held == n.word {
		return !n.other, nil
	}
	return false, n.pass([]byte(n.held))
}
