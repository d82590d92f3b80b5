//go:build integration

package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/agentpane/sandboxctl/reconcile/clustertest"
	"github.com/agentpane/sandboxctl/render"
)

// shell runs command lines against a fleet in a namespace of its own.
type shell struct {
	*testing.T
	cluster   clustertest.Cluster
	namespace string
	file      string
}

// newShell makes the file of a fleet that is not applied yet.
func newShell(t *testing.T) *shell {
	t.Parallel()
	cluster := clustertest.Connect(t)
	s := &shell{
		T: t, cluster: cluster, file: filepath.Join(t.TempDir(), "sandboxes.yaml"),
		namespace: cluster.Namespace(t, map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}),
	}
	s.declare("  api: {template: t, project: shop}\n  paused: {template: t, state: stopped}\n")
	return s
}

func (s *shell) declare(sandboxes string) {
	s.Helper()
	content := fmt.Sprintf(`apiVersion: agentpane.io/v1alpha1
kind: SandboxFleet
name: fleet
namespace: %s
limits: {min: {cpu: 10m, memory: 16Mi}}
egress: {unenforced: allow}
templates:
  t: {image: %s, resources: {cpu: "1", memory: 64Mi, requests: {cpu: 10m, memory: 16Mi}}, workspace: {emptyDir: 50Mi}}
sandboxes:
%s`, s.namespace, clustertest.SandboxImage, sandboxes)
	if err := os.WriteFile(s.file, []byte(content), 0o600); err != nil {
		s.Fatal(err)
	}
}

// ran is what a command line came to.
type ran struct {
	code           int
	stdout, stderr string
}

func (s *shell) run(args ...string) ran {
	return s.runWith(s.Context(), strings.NewReader(""), args...)
}

func (s *shell) runWith(ctx context.Context, stdin io.Reader, args ...string) ran {
	var stdout bytes.Buffer
	got := s.runTo(ctx, stdin, &stdout, args...)
	got.stdout = stdout.String()
	return got
}

func (s *shell) runTo(ctx context.Context, stdin io.Reader, stdout io.Writer, args ...string) ran {
	var stderr bytes.Buffer
	environment := s.environment(stdin, stdout)
	environment.stderr = &stderr
	code := run(ctx, s.commandLine(args), environment)
	return ran{code: code, stderr: stderr.String()}
}

// uncoloured is what a terminal that shows no colours would show.
func uncoloured(text string) string {
	var plain strings.Builder
	_, _ = io.WriteString(&plainWriter{out: &plain}, text) // a builder takes everything
	return plain.String()
}

// commandLine is a command line about the fleet's file.
func (s *shell) commandLine(args []string) []string {
	verb := 1
	if args[0] == "session" {
		verb = 2
	}
	flags := []string{"--file", s.file, "--kubeconfig", os.Getenv("SANDBOXCTL_TEST_KUBECONFIG")}
	return slices.Concat(args[:verb], flags, args[verb:])
}

func (s *shell) environment(stdin io.Reader, stdout io.Writer) environment {
	return environment{
		stdin: stdin, stdout: cmp.Or(stdout, io.Discard), stderr: io.Discard, now: time.Now,
		lookupEnv: func(string) (string, bool) { return "", false },
	}
}

// follower reads what a command prints while it runs.
type follower struct {
	*shell
	lines *bufio.Reader
	ended chan ran
}

// following starts a command.
func (s *shell) following(args ...string) follower {
	reader, writer := io.Pipe()
	f := follower{s, bufio.NewReader(reader), make(chan ran, 1)}
	go func() {
		got := s.runTo(s.Context(), strings.NewReader(""), writer, args...)
		_ = writer.Close() // always nil
		f.ended <- got
	}()
	return f
}

// expect reads a line that is to be that one.
func (f follower) expect(want string) {
	f.Helper()
	if got, err := f.lines.ReadString('\n'); got != want {
		f.Fatalf("following it: %q, %v; not %q", got, err, want)
	}
}

// expect runs a command line that is to end with that code and print that.
func (s *shell) expect(code int, stdout, stderr string, args ...string) {
	s.Helper()
	got := s.run(args...)
	if got.code != code || !strings.Contains(uncoloured(got.stdout), stdout) || !strings.Contains(got.stderr, stderr) {
		s.Errorf("%q: want %d, %q and %q; got %d\n%s\n%s", args, code, stdout, stderr, got.code, got.stdout, got.stderr)
	}
}

func (s *shell) apply() {
	s.Helper()
	if got := s.run("apply", "--yes"); got.code != 0 {
		s.Fatalf("apply: %d\n%s", got.code, got.stderr)
	}
}

func (s *shell) status() (status statusInfo) {
	s.Helper()
	got := s.run("status", "-o", "json")
	if got.code != 0 {
		s.Fatalf("status: %d\n%s", got.code, got.stderr)
	}
	if err := json.Unmarshal([]byte(got.stdout), &status); err != nil {
		s.Fatal(err)
	}
	return status
}

func TestSandboxVerbs(t *testing.T) {
	s := newShell(t)
	s.expect(0, "Health: the cluster is healthy; the fleet is not applied yet.\n", "", "status")
	s.expect(1, "", "K8S_POD_NOT_FOUND: sandbox api has no pod", "exec", "api", "--", "true")
	s.apply()

	status := s.status()
	if !status.Healthy || !*status.NamespaceExists || !*status.Applied || *status.Pods != 1 || *status.PodsRunning != 1 || status.ServerVersion == "" {
		t.Errorf("the status is %+v", status)
	}
	api, paused := status.Sandboxes[0], status.Sandboxes[1]
	if !api.Ready || api.Project != "shop" || api.Pod == nil || api.Pod.UID == "" || *api.Resources.CPU != "1" || *api.Resources.Memory != "64Mi" || api.LastActivity != nil {
		t.Errorf("api's row is %+v", api)
	}
	if paused.Ready || paused.Pod != nil || paused.Created != nil {
		t.Errorf("paused's row is %+v", paused)
	}

	t.Run("exec", func(t *testing.T) { s.with(t).exec() })
	t.Run("exec that is given up", func(t *testing.T) { s.with(t).execGivenUp() })
	t.Run("cp", func(t *testing.T) { s.with(t).cp() })
	t.Run("top", func(t *testing.T) { s.with(t).top() })
	t.Run("logs", func(t *testing.T) { s.with(t).logs() })

	s.declare("  web: {template: t, image: \"registry.invalid/none:1\"}\n")
	s.expect(0, "api       shop      not any more", "", "status")
	s.expect(0, "the file no longer declares it", "", "status")
}

func (s *shell) with(t *testing.T) *shell {
	other := *s
	other.T = t
	return &other
}

func (s *shell) exec() {
	s.expect(0, "a  b $HOME\n", "", "exec", "api", "--", "echo", "a  b", "$HOME")
	s.expect(7, "out\n", "err\n", "exec", "api", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
	s.expect(1, "", "K8S_EXEC_FAILED: there is no program nope in the sandbox", "exec", "api", "--", "nope", "secret")
	s.expect(1, "", "Did you mean \"api\"? It has: api, paused", "exec", "apj", "--", "true")
	s.expect(1, "", "K8S_POD_NOT_FOUND: sandbox paused is stopped", "exec", "paused", "--", "true")

	s.expect(0, "/tmp a=b;$HOME \n", "", "exec", "api", "--cwd", "/tmp", "--env", "A=a=b;$HOME", "-e", "B=", "--", "sh", "-c", `echo "$PWD $A $B"`)
	s.expect(127, "", "nope: not found", "exec", "api", "--cwd", "/tmp", "--", "nope")
	s.expect(1, "", "K8S_EXEC_FAILED: there is no folder /nope in the sandbox", "exec", "api", "--cwd", "/nope", "--", "true")
	s.expect(126, "", "mine", "exec", "api", "--cwd", "/tmp", "--", "sh", "-c", "echo mine >&2; exit 126")
	s.expect(3, "", "", "exec", "api", "--timeout", "1m", "--", "sh", "-c", "exit 3")
	s.expect(1, "", `K8S_EXEC_FAILED: "A-B" is not the name of an environment variable`, "exec", "api", "--env", "A-B=c", "--", "true")
	s.expect(1, "", "K8S_EXEC_AS_ROOT_REFUSED", "exec", "api", "--user", "root", "--", "true")
	s.expect(1, "", "K8S_EXEC_FAILED: commands run as the user of the sandbox's container", "exec", "api", "--user", "node", "--", "true")

	binary := make([]byte, 300<<10)
	for i := range binary {
		binary[i] = byte(i * i >> 3)
	}
	got := s.runWith(s.Context(), bytes.NewReader(binary), "exec", "api", "-i", "--", "cat")
	if got.code != 0 || got.stdout != string(binary) {
		s.Errorf("cat of binary input: %d, %d of %d bytes, %s", got.code, len(got.stdout), len(binary), got.stderr)
	}
}

func (s *shell) execGivenUp() {
	s.expect(1, "", "K8S_EXEC_TIMEOUT: sh did not end within 1s; it was ended", "exec", "api", "--timeout", "1s", "--", "sh", "-c", "sleep 4711 & trap '' TERM; sleep 4711")
	s.expect(1, "", "", "exec", "api", "--", "pgrep", "-f", "sleep 4711")
	ctx, cancel := context.WithCancel(s.Context())
	reader, writer := io.Pipe()
	go func() {
		_, _ = writer.Write([]byte("x")) // returns once the command's input is being read
		cancel()
	}()
	if got := s.runWith(ctx, reader, "exec", "api", "-i", "--", "sleep", "30"); got.code != 1 || !strings.Contains(got.stderr, "interrupted") {
		s.Errorf("an interrupt: %+v", got)
	}
}

func (s *shell) cp() {
	dir := s.TempDir()
	source := filepath.Join(dir, "source")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(source, "sub"), 0o755),
		os.WriteFile(filepath.Join(source, "sub", "run"), []byte("#!/bin/sh\n"), 0o750),
		os.WriteFile(filepath.Join(source, "odd\nname\\"), bytes.Repeat([]byte("x"), 1<<20), 0o644),
		os.Symlink("sub/run", filepath.Join(source, "link")),
	} {
		if err != nil {
			s.Fatal(err)
		}
	}
	s.expect(0, "", "Copied 2 files", "cp", source, "api:/workspace")
	s.expect(0, `"files": 2`, "", "cp", source, "api:copy", "-o", "json")
	s.expect(0, "750 /workspace/copy/sub/run\n", "", "exec", "api", "--", "stat", "-c", "%a %n", "/workspace/copy/sub/run")

	back := filepath.Join(dir, "back")
	s.expect(0, "", "Copied 2 files", "cp", "api:/workspace/source", back)
	for _, name := range []string{"sub/run", "odd\nname\\", "link"} {
		want, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			s.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(back, name)); err != nil || !bytes.Equal(got, want) {
			s.Errorf("%q came back as %d bytes, %v", name, len(got), err)
		}
	}
	if info, err := os.Stat(filepath.Join(back, "sub", "run")); err != nil || info.Mode().Perm() != 0o750 {
		s.Errorf("the mode came back as %v, %v", info, err)
	}

	s.expect(0, "", "", "exec", "api", "--", "ln", "-s", "/etc/passwd", "/workspace/source/leak")
	s.expect(1, "", `"leak" is a link that leads out of the folder`, "cp", "api:source", back)
	if _, err := os.Lstat(filepath.Join(back, "source", "leak")); err == nil {
		s.Error("a link that leads out was made")
	}
	s.expect(1, "", "the copy is not whole: files copied: 0", "cp", "api:nope", back)
	s.expect(1, "", "there is no folder /nope in the sandbox", "cp", source, "api:/nope/x")
	s.expect(1, "", "Permission denied", "cp", source, "api:/etc")
}

// top: the local cluster measures, some time after a pod has started; kind does not.
func (s *shell) top() {
	_, err := s.cluster.Client.Discovery().ServerResourcesForGroupVersion("metrics.k8s.io/v1beta1")
	if apierrors.IsNotFound(err) {
		s.expect(0, "unavailable: the cluster has no metrics.k8s.io", "", "top")
		s.expect(0, `"cpuMillicores": null`, "", "top", "api", "-o", "json")
	} else {
		measured := regexp.MustCompile(`"memoryBytes": [1-9]`)
		clustertest.Eventually(s.T, "the sandbox is measured", func(context.Context) bool {
			return measured.MatchString(s.run("top", "api", "-o", "json").stdout)
		})
	}
	s.expect(1, "", "Did you mean \"api\"?", "top", "apj")
}

// logs comes last: it restarts the container, as only its first process prints there.
func (s *shell) logs() {
	s.expect(1, "", "it has no previous log", "logs", "api", "--previous")
	s.expect(0, "", "", "exec", "api", "--", "sh", "-c", "printf 'one\\ntwo\\n' >/proc/1/fd/1")
	s.expect(0, "one\ntwo\n", "", "logs", "api")
	if got := s.run("logs", "api", "--tail", "1"); got.stdout != "two\n" {
		s.Errorf("the last line is %q, %s", got.stdout, got.stderr)
	}
	if got := s.run("logs", "api", "--tail", "1", "--timestamps"); !strings.HasSuffix(got.stdout, "Z two\n") {
		s.Errorf("with its time, the last line is %q, %s", got.stdout, got.stderr)
	}
	followed := s.following("logs", "api", "-f")
	followed.expect("one\n")
	followed.expect("two\n")
	// The container ends, which ends the log, too.
	s.run("exec", "api", "--", "sh", "-c", "echo three >/proc/1/fd/1; kill -TERM 1")
	rest, _ := io.ReadAll(followed.lines) // a pipe's reader has no errors of its own
	if got := <-followed.ended; got.code != 0 || string(rest) != "three\n" {
		s.Errorf("following it further: %q, %+v", rest, got)
	}
	clustertest.Eventually(s.T, "the container was restarted", func(ctx context.Context) bool {
		pods, err := s.cluster.Client.CoreV1().Pods(s.namespace).List(ctx, metav1.ListOptions{LabelSelector: render.SandboxIDLabel + "=api"})
		return err == nil && len(pods.Items) == 1 && pods.Items[0].Status.ContainerStatuses[0].RestartCount == 1
	})
	s.expect(0, "three\n", "", "logs", "api", "--previous")
}
