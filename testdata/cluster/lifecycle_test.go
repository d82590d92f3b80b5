//go:build integration

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agentpane/sandboxctl/testdata/cluster/process"
)

// lifecycle is a second cluster, beside the one that other tests use, driven
// by the program as a person would.
type lifecycle struct {
	*cluster
	binary string
	args   []string
}

func newLifecycle(t *testing.T) lifecycle {
	binary := filepath.Join(t.TempDir(), "cluster")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("building the program: %v\n%s", err, out)
	}
	args := []string{"--name", "life", "--network", "10.213.0.4/30", "--dir", filepath.Join(t.TempDir(), "life")}
	c, _, err := parse(append(args, "up"), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	l := lifecycle{cluster: c, binary: binary, args: args}
	l.run(t, "down") // what a run that was cut off has left is no trace of this one
	t.Cleanup(func() { l.run(t, "down") })
	return l
}

// run runs a command and waits until nobody holds its output open, which must
// not take longer than the command.
func (l lifecycle) run(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(l.binary, append(l.args, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrWaitDelay) {
		t.Errorf("cluster %v: its parts hold its output open", args)
	}
	if err != nil {
		t.Fatalf("cluster %v: %v\n%s", args, err, stderr.String())
	}
	return string(out)
}

// killAll kills the parts, each without a chance to clean up.
func (l lifecycle) killAll(t *testing.T, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if err := l.pidFile(part).Signal(unix.SIGKILL); err != nil {
			t.Errorf("killing %s: %v", part, err)
		}
	}
}

func (l lifecycle) partNames() []string {
	var names []string
	for _, part := range l.parts() {
		names = append(names, part.name)
	}
	return names
}

// TestUpAfterAnyPartWasKilled: up makes the cluster whole again, whatever was
// killed, and leaves a whole one alone; down after everything was killed
// leaves nothing.
func TestUpAfterAnyPartWasKilled(t *testing.T) {
	l := newLifecycle(t)
	traces := l.traces(t)
	if out := l.run(t, "up"); out != "export KUBECONFIG="+l.kubeconfig()+"\n" {
		t.Errorf("up printed %q", out)
	}
	before := l.states()
	l.run(t, "up")
	if got := l.states(); fmt.Sprint(got) != fmt.Sprint(before) {
		t.Errorf("up again changed the parts from %v to %v", before, got)
	}
	for _, part := range l.partNames() {
		l.killAll(t, part)
		l.run(t, "up")
		l.run(t, "status") // fails where a part does not run
	}
	l.run(t, "pause", "etcd")
	l.run(t, "up")
	l.run(t, "status")
	l.killAll(t, l.partNames()...)
	l.run(t, "up")
	l.run(t, "status")
	l.killAll(t, l.partNames()...)
	l.checkDown(t, traces)
}

// TestDownAfterAKill: what a kill orphans or leaves mounted is removed as well.
func TestDownAfterAKill(t *testing.T) {
	l := newLifecycle(t)
	traces := l.traces(t)

	l.run(t, "up")
	l.killAll(t, "containerd") // its containers go on
	l.checkDown(t, traces)

	l.run(t, "up")
	if err := process.File(l.path("node.pid")).Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	l.checkDown(t, traces)
}

// checkDown checks that down leaves no process, mount, interface, firewall
// rule, cgroup or file that was not there before.
func (l lifecycle) checkDown(t *testing.T, before string) {
	t.Helper()
	if l.traces(t) == before {
		t.Error("the cluster had left no traces: this test looks in the wrong places")
	}
	l.run(t, "down")
	if got := l.traces(t); got != before {
		t.Errorf("down left traces\nbefore: %s\nafter:  %s", before, got)
	}
}

// traces describes what a cluster could leave on the machine.
func (l lifecycle) traces(t *testing.T) string {
	t.Helper()
	var traces []string
	add := func(format string, args ...any) { traces = append(traces, fmt.Sprintf(format, args...)) }

	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		if i.Name == l.node.Interface() {
			add("interface %s", i.Name)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	add("%d mounts", strings.Count(string(mounts), "\n"))
	rules, err := exec.Command("nft", "list", "ruleset").Output()
	if err != nil {
		t.Fatal(err)
	}
	add("rules %q", rules)
	cgroups, err := filepath.Glob("/sys/fs/cgroup/*" + l.node.Cgroup())
	if err != nil {
		t.Fatal(err)
	}
	add("cgroups %v", cgroups)
	if _, err := os.Stat(l.dir); !errors.Is(err, fs.ErrNotExist) {
		add("folder %s", l.dir)
	}
	// Every process of the node was started with a path of its folder, or
	// descends from one that was: a process that escaped would show it.
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range commands {
		command, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(command), l.dir) {
			add("process %q", command)
		}
	}
	return strings.Join(traces, "; ")
}
