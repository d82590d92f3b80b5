package process_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agentpane/sandboxctl/testdata/cluster/process"
)

// start runs a shell script and records it.
func start(t *testing.T, script string) process.File {
	t.Helper()
	cmd := exec.Command("sh", "-c", script)
	ready, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waited := make(chan struct{})
	go func() {
		defer close(waited)
		_ = cmd.Wait() // that it was killed is what the tests are about
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-waited
	})
	// The script prints a byte once its traps are set.
	if _, err := ready.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	file := process.File(filepath.Join(t.TempDir(), "part.pid"))
	if err := file.Write(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestStopEndsEveryProcess(t *testing.T) {
	for name, script := range map[string]string{
		"one that ends on SIGTERM": "echo; exec sleep 1000",
		"one that ignores SIGTERM": "trap '' TERM; echo; while :; do sleep 0.05; done",
		"one that is paused":       "echo; kill -STOP $$; exec sleep 1000",
	} {
		t.Run(name, func(t *testing.T) {
			file := start(t, script)
			if err := file.Stop(100 * time.Millisecond); err != nil {
				t.Fatal(err)
			}
			if file.Alive() || file.Exists() {
				t.Error("the process or its record is still there")
			}
			if err := file.Stop(time.Second); err != nil {
				t.Errorf("stopping it again: %v", err)
			}
		})
	}
}

func TestPause(t *testing.T) {
	file := start(t, "echo; exec sleep 1000")
	if file.Paused() {
		t.Error("paused before it was")
	}
	if err := file.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); !file.Paused(); {
		if time.Now().After(deadline) {
			t.Fatal("not paused after SIGSTOP")
		}
	}
	if err := file.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); file.Paused(); {
		if time.Now().After(deadline) {
			t.Fatal("still paused after SIGCONT")
		}
	}
}

// TestRecycledID: a process that was given the id of one that ended must
// neither count as that one nor be killed in its place.
func TestRecycledID(t *testing.T) {
	file := start(t, "echo; exec sleep 1000")
	pid, _ := file.Pid()
	stale := process.File(filepath.Join(t.TempDir(), "stale.pid"))
	if err := os.WriteFile(string(stale), []byte(strconv.Itoa(pid)+" 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if stale.Alive() {
		t.Error("another process counts as the recorded one")
	}
	if err := stale.Kill(); err != nil {
		t.Fatal(err)
	}
	if !file.Alive() {
		t.Error("another process was killed")
	}
}

func TestBrokenRecord(t *testing.T) {
	file := process.File(filepath.Join(t.TempDir(), "part.pid"))
	for _, content := range []string{"", "x", "-1 2", "99999999999999999999 1"} {
		if err := os.WriteFile(string(file), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if file.Alive() {
			t.Errorf("%q counts as a running process", content)
		}
		if err := file.Signal(unix.SIGSTOP); err == nil || !strings.Contains(err.Error(), "part is not running") {
			t.Errorf("%q: signal: %v, want an error that names the part", content, err)
		}
	}
}
