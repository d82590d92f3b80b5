package kindcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/kind/pkg/log"
)

// engines makes a PATH with nothing but these programs: name → shell script.
func engines(t *testing.T, scripts map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, script := range scripts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
}

const (
	answers = "[ \"$1\" = info ] && echo 1.2.3"
	dead    = "echo Client:; echo connecting >&2; echo 'Cannot connect. Is it running?' >&2; exit 1"
	silent  = "exit 0"
)

func TestFindEngine(t *testing.T) {
	for _, test := range []struct {
		name, engine, want string
		scripts            map[string]string
	}{
		{"docker before the others", "", "docker", map[string]string{"docker": answers, "podman": answers, "nerdctl": answers}},
		{"podman before nerdctl", "", "podman", map[string]string{"podman": answers, "nerdctl": answers}},
		{"one that answers before one that does not", "", "nerdctl", map[string]string{"docker": dead, "podman": silent, "nerdctl": answers}},
		{"the one that was named", "podman", "podman", map[string]string{"docker": answers, "podman": answers}},
	} {
		t.Run(test.name, func(t *testing.T) {
			engines(t, test.scripts)
			engine, err := FindEngine(t.Context(), test.engine)
			if err != nil {
				t.Fatal(err)
			}
			expect(t, "engine", engine.Name, test.want)
		})
	}
}

// Podman under Docker's name has no field ServerVersion: kind could not use it
// as Docker.
func TestFindEngineTellsPodmanFromDocker(t *testing.T) {
	podman := "case \"$*\" in *.ServerVersion*) exit 125 ;; *) echo 5.0.0 ;; esac"
	engines(t, map[string]string{"docker": podman, "podman": podman})
	engine, err := FindEngine(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "engine", engine.Name, "podman")
}

func TestFindEngineWhereNoneAnswers(t *testing.T) {
	engines(t, map[string]string{"docker": dead, "nerdctl": silent})
	_, err := FindEngine(t.Context(), "")
	expectError(t, err, `no container engine answers:
  docker   installed, but its engine does not answer: Cannot connect. Is it running?
  podman   not installed
  nerdctl  installed, but its engine does not answer: it tells no version
Start one of them, or install one.`, "`make cluster-up`")
}

func TestFindEngineWhereTheNamedOneDoesNotAnswer(t *testing.T) {
	engines(t, map[string]string{"docker": dead, "nerdctl": answers})
	_, err := FindEngine(t.Context(), "docker")
	expect(t, "error", err.Error(), "docker: installed, but its engine does not answer: Cannot connect. Is it running?")
	_, err = FindEngine(t.Context(), "podman")
	expect(t, "error", err.Error(), "podman: not installed")
}

func TestFindEngineDoesNotWaitForEver(t *testing.T) {
	engines(t, map[string]string{"docker": "while :; do read -r _ </dev/zero; done", "podman": answers})
	_, err := findEngine(t.Context(), "docker", 50*time.Millisecond)
	expect(t, "error", err.Error(), "docker: installed, but its engine does not answer: nothing within 50ms")
}

func TestFindEngineEndsWithItsContext(t *testing.T) {
	engines(t, map[string]string{"docker": answers})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := FindEngine(ctx, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("error: %v", err)
	}
}

func TestCommandTellsTheEndOfWhatAnEnginePrinted(t *testing.T) {
	var script strings.Builder
	for i := range 20 {
		fmt.Fprintf(&script, "echo line %d >&2\n", i)
	}
	engines(t, map[string]string{"docker": script.String() + "exit 3"})
	_, err := command("docker")(t.Context(), "build", "dir")
	expectError(t, err, "docker build dir: exit status 3:\n  line 5\n", "\n  line 19")
}

func TestProgressKeepsDebuggingOut(t *testing.T) {
	w := newWorld(t)
	var logger log.Logger = w.progress
	logger.V(0).Infof(" • step %d\n", 1)
	logger.V(1).Info("debug")
	logger.Warn("warning")
	logger.Errorf("error %d", 2)
	expect(t, "progress", w.log.String(), " • step 1\nwarning\nerror 2\n")
}
