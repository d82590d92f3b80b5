//go:build integration

package main

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// completed is what a shell is offered for a session of sandbox a.
func (r trial) completed(file string) string {
	r.Helper()
	return r.completions(file, "session", "attach", "a", "")
}

// completions are what a shell is offered for the last of the words.
func (r trial) completions(file string, words ...string) string {
	r.Helper()
	var stdout, stderr bytes.Buffer
	last := len(words) - 1
	words = slices.Concat([]string{"__complete"}, words[:last], []string{"--file", file, "--kubeconfig", r.kubeconfig}, words[last:])
	code := run(r.Context(), words, environment{
		stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, now: r.now,
		lookupEnv: r.lookupEnv,
	})
	if code != 0 || strings.Contains(stderr.String(), "K8S_") {
		r.Errorf("exit code %d: %s", code, stderr.String())
	}
	return stdout.String()
}

// TestClaimsAreCompleted where they are what is meant, and beside the file's own
// sandboxes where any is.
func TestClaimsAreCompleted(t *testing.T) {
	r := newTrial(t)
	file := r.file("pools: {p: {template: t, min: 1, max: 2}}\n", oneSandbox)
	r.done(r.run("apply", "--yes", "-f", file))
	r.done(r.run("claim", "-f", file, "--pool", "p", "--name", "mine", "--project", "x"))
	const claimed, end = "mine\tproject x, claimed\n", ":4\n"
	if got := r.completions(file, "release", ""); got != claimed+end {
		t.Errorf("to release: %q", got)
	}
	if got := r.completions(file, "exec", ""); got != "a\tproject a, running\n"+claimed+end {
		t.Errorf("to run a command in: %q", got)
	}
}

// TestSessionNamesAreCompleted from the sandbox itself, those of the file first;
// and from the file alone, soon and without a word, where the sandbox does not
// answer.
func TestSessionNamesAreCompleted(t *testing.T) {
	r := newTrial(t)
	file := r.file("", "  a: {template: t, sessions: {agent: {windows: [{window_name: main}]}}}\n")
	const declared, end = "agent\tmain\n", ":4\n"
	if got := r.completed(file); got != declared+end {
		t.Errorf("before there is a sandbox: %q", got)
	}
	r.done(r.run("apply", "--yes", "-f", file))
	r.done(r.run("exec", "a", "-f", file, "--", "tmux", "new-session", "-d", "-s", "mine", "-n", "notes"))
	flags := sandboxFlags{files: fleetFlags{files: []string{file}}, connect: connectFlags{kubeconfig: place(r.kubeconfig), requestTimeout: time.Minute}}
	environment := environment{now: r.now, lookupEnv: r.lookupEnv}
	others := flags.otherSessions(t.Context(), environment, "a", flags.sessionNames("a")) // a busy machine may need more time than a prompt has
	if diff := cmp.Diff([]string{"mine\tnotes"}, others); diff != "" {
		t.Errorf("from the sandbox (-want +got):\n%s", diff)
	}
	silent := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
			if strings.HasSuffix(request.URL.Path, "/exec") {
				<-request.Context().Done()
				return
			}
			next.ServeHTTP(response, request)
		})
	}
	r.kubeconfig = r.through(silent)
	begun := time.Now()
	if got := r.completed(file); got != declared+end {
		t.Errorf("of a sandbox that is silent: %q", got)
	}
	if took := time.Since(begun); took < completionTime || took > completionTime+3*time.Second {
		t.Errorf("the prompt waited for %s", took)
	}
}
