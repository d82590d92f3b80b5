//go:build integration

package main

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestSecondInterruptEndsAtOnce: the first Ctrl-C lets watch finish what is
// under way, here a write that is held up; the next one ends it all the same.
func TestSecondInterruptEndsAtOnce(t *testing.T) {
	r := newTrial(t)
	held, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	kubeconfig := r.throughProxy(func(request *http.Request) bool {
		if isWrite(request) && strings.Contains(request.URL.Path, "/pods/agentpane-") {
			once.Do(func() { close(held) })
			<-release
		}
		return true
	})
	t.Cleanup(func() { close(release) }) // before the proxy waits for its requests
	var output bytes.Buffer
	command := exec.Command(r.program(), "watch", "-f", r.file("", oneSandbox), "--log=json", "--kubeconfig", kubeconfig)
	command.Stdout, command.Stderr = &output, &output
	r.must(command.Start())
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	deadline := time.After(time.Minute)
	select {
	case <-held:
	case err := <-ended:
		t.Fatalf("watch ended: %v\n%s", err, &output)
	case <-deadline:
		_ = command.Process.Kill()
		t.Fatalf("no pod was made\n%s", <-ended)
	}
	// A person who sees that the first did not end it presses again, which the
	// program may take for the same press when that comes within a moment.
	presses := time.NewTicker(100 * time.Millisecond)
	defer presses.Stop()
	for {
		select {
		case <-presses.C:
			_ = command.Process.Signal(os.Interrupt) // it may have ended meanwhile
		case <-ended:
			status := command.ProcessState.Sys().(syscall.WaitStatus)
			if !status.Signaled() || status.Signal() != syscall.SIGINT {
				t.Errorf("it ended by itself, %s, and was to wait for the write\n%s", command.ProcessState, &output)
			}
			return
		case <-deadline:
			_ = command.Process.Kill()
			t.Fatalf("Ctrl-C does not end it\n%s", <-ended)
		}
	}
}
