package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/agentpane/sandboxctl/reconcile/failure"
)

// Copied is what a copy has come to.
type Copied struct {
	Files   int
	Bytes   int64
	Skipped []Skipped
}

// Skipped is a file that was not copied.
type Skipped struct {
	// Name is its path below what was to be copied.
	Name string
	// Why completes a sentence that begins with the name.
	Why string
}

// Download copies a file or folder of a sandbox to this machine: to the path
// to, or into it where it is a folder. Modes are kept; what is there is
// replaced. Nothing is ever written outside. A copy that is not whole is an
// error, which says so, and Copied is how far it came.
func (c *Client) Download(ctx context.Context, pod *corev1.Pod, from, to string) (Copied, error) {
	folder, base := splitRemote(from)
	target := to
	if info, err := os.Stat(to); err == nil && info.IsDir() && base != "." {
		target = filepath.Join(to, base)
	} else if err != nil && os.IsPathSeparator(to[len(to)-1]) {
		return Copied{}, fmt.Errorf("there is no folder %s", to)
	}
	execCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	reader, writer := io.Pipe()
	var words cappedBuffer
	remote := make(chan error, 1)
	go func() {
		err := c.tar(execCtx, pod, Command{Args: []string{"tar", "-cf", "-", "-C", folder, "--", base}, Stdout: writer}, &words)
		_ = writer.Close() // always nil
		remote <- err
	}()
	copied, err := unpack(reader, target, base)
	gaveUp := err != nil && !errors.Is(err, errBrokenOff)
	if gaveUp {
		cancel()
		_ = reader.CloseWithError(err) // always nil
	}
	if remoteErr := <-remote; remoteErr != nil && !gaveUp {
		err = remoteErr // why the archive broke off
	}
	return copied, c.whole(ctx, pod, copied, err)
}

// Upload copies a file or folder of this machine into a sandbox, as Download
// does the other way. That all has arrived is confirmed by a second look, as a
// connection that breaks off can look like success.
func (c *Client) Upload(ctx context.Context, pod *corev1.Pod, from, to string) (Copied, error) {
	local, err := filepath.Abs(from)
	if err != nil {
		return Copied{}, err
	}
	if _, err := os.Stat(local); err != nil { // before anything is asked of the sandbox
		return Copied{}, err
	}
	folder, base := to, filepath.Base(local)
	isFolder, err := c.isFolder(ctx, pod, to)
	if err != nil {
		return Copied{}, err
	}
	if !isFolder {
		parent, name := splitRemote(to)
		folder, base = parent, name
		// A tar that ends at once would leave the connection waiting for a minute.
		if isFolder, err = c.isFolder(ctx, pod, folder); err != nil {
			return Copied{}, err
		}
		if !isFolder || strings.HasSuffix(to, "/") || name == "." {
			return Copied{}, failure.New(failure.ExecFailed, about(pod), "there is no folder %s in the sandbox", folder).
				WithHint("Make it first: sandboxctl exec SANDBOX -- mkdir -p …")
		}
	}
	reader, writer := io.Pipe()
	type result struct {
		packed
		err error
	}
	packing := make(chan result, 1)
	go func() {
		done, err := pack(writer, local, base)
		_ = writer.CloseWithError(err) // always nil
		packing <- result{done, err}
	}()
	var words cappedBuffer
	err = c.tar(ctx, pod, Command{Args: []string{"tar", "-xpof", "-", "-C", folder}, Stdin: reader, Stdout: io.Discard}, &words)
	_ = reader.CloseWithError(errRemoteEnded) // always nil; ends pack where tar did not read all
	sent := <-packing
	switch {
	case sent.err != nil && !errors.Is(sent.err, errRemoteEnded):
		err = sent.err
	case err == nil && sent.err != nil:
		err = sent.err
	case err == nil:
		err = c.confirmFiles(ctx, pod, folder, sent.packed)
	}
	return sent.Copied, c.whole(ctx, pod, sent.Copied, err)
}

var errRemoteEnded = errors.New("tar ended in the sandbox before it had read all")

// splitRemote splits a path in a sandbox into its folder and its last part.
func splitRemote(name string) (folder, base string) {
	name = path.Clean(name)
	folder, base = path.Dir(name), path.Base(name)
	if base == "/" || base == "." || base == ".." {
		return name, "."
	}
	return folder, base
}

// tar runs tar; what it says against its task is the error.
func (c *Client) tar(ctx context.Context, pod *corev1.Pod, command Command, words *cappedBuffer) error {
	command.Stderr = words
	code, err := c.Exec(ctx, pod, command)
	if err == nil && code != 0 {
		said := strings.TrimSpace(words.String())
		err = failure.New(failure.ExecFailed, about(pod), "tar failed in the sandbox with exit code %d: %s", code, said).With("command", "tar")
	}
	return err
}

func (c *Client) isFolder(ctx context.Context, pod *corev1.Pod, name string) (bool, error) {
	code, err := c.Exec(ctx, pod, Command{Args: []string{"test", "-d", name}, Stdout: io.Discard})
	return code == 0, err
}

// confirmFiles compares the sums of the files that were sent with those of the
// files that are there.
func (c *Client) confirmFiles(ctx context.Context, pod *corev1.Pod, folder string, sent packed) error {
	if len(sent.sums) == 0 {
		return nil
	}
	var list bytes.Buffer
	for name, sum := range sent.sums {
		list.WriteString(sumLine(path.Join(folder, name), sum[:]))
	}
	// One line is printed for each file: its name, twice as long if it must be
	// escaped, and the verdict.
	output := cappedBuffer{limit: 2*list.Len() + 4096}
	_, err := c.Exec(ctx, pod, Command{
		Args: []string{"env", "LC_ALL=C", "sha256sum", "-c", "-"}, Stdin: &list, Stdout: &output, Stderr: io.Discard,
	})
	if err != nil {
		return err
	}
	arrived := 0
	for line := range strings.Lines(output.String()) {
		if strings.HasSuffix(strings.TrimSuffix(line, "\n"), ": OK") {
			arrived++
		}
	}
	if arrived < len(sent.sums) {
		return failure.New(failure.ExecFailed, about(pod), "%d of %d files are in the sandbox as they were sent", arrived, len(sent.sums)).
			WithHint("Copy again; the image needs sha256sum, and nothing may change the files at the same time.")
	}
	return nil
}

// sumLine is one line of what sha256sum -c reads.
func sumLine(name string, sum []byte) string {
	escaped := strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`).Replace(name)
	if strings.HasPrefix(name, "-") {
		escaped = "./" + escaped // "-" alone would be standard input
	}
	mark := ""
	if escaped != name && strings.ContainsAny(name, "\\\n\r") {
		mark = `\`
	}
	return fmt.Sprintf("%s%x  %s\n", mark, sum, escaped)
}

// whole returns the error of a copy that is not whole.
func (c *Client) whole(ctx context.Context, pod *corev1.Pod, copied Copied, err error) error {
	far := fmt.Sprintf("the copy is not whole: files copied: %d, bytes: %d", copied.Files, copied.Bytes)
	if err != nil && ctx.Err() != nil {
		return errors.New("interrupted; " + far)
	}
	if known, ok := errors.AsType[*failure.Error](err); ok {
		partial := *known
		partial.Message += "; " + far
		return &partial
	}
	if err != nil {
		return fmt.Errorf("%w; %s", err, far)
	}
	if len(copied.Skipped) == 0 {
		return nil
	}
	const most = 5
	var names []string
	for _, skipped := range copied.Skipped[:min(most, len(copied.Skipped))] {
		names = append(names, fmt.Sprintf("%q %s", skipped.Name, skipped.Why))
	}
	if more := len(copied.Skipped) - most; more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return failure.New(failure.ExecFailed, about(pod), "%s; left out: %s", far, strings.Join(names, ", "))
}
