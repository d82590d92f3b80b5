package kindcluster

import (
	"fmt"
	"strings"

	"sigs.k8s.io/kind/pkg/exec"
)

// kindError wraps an error of kind with what was being done and with the
// output of the command that failed, which kind's own text leaves out.
func kindError(doing string, err error) error {
	if failed := exec.RunErrorForError(err); failed != nil {
		err = withOutput(err, failed.Output)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// withOutput adds the last lines of a command's output to its error.
func withOutput(err error, output []byte) error {
	const most = 15 // the reason is at the end; kubeadm prints hundreds
	text := strings.TrimSpace(string(output))
	if text == "" {
		return err
	}
	lines := strings.Split(text, "\n")
	lines = lines[max(0, len(lines)-most):]
	return fmt.Errorf("%w:\n  %s", err, strings.Join(lines, "\n  "))
}

// lastLine is the last line of an error's text: of the output, where
// withOutput added some.
func lastLine(err error) string {
	text := err.Error()
	return strings.TrimSpace(text[strings.LastIndex(text, "\n")+1:])
}
