//go:build integration

package main

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/render"
)

// later is the trial with a clock that is ahead.
func (r trial) later(by time.Duration) trial {
	r.now = func() time.Time { return time.Now().Add(by) }
	return r
}

// noted is the time that a sandbox's pod says it was last used at.
func (r trial) noted(sandbox string) time.Time {
	r.Helper()
	at, err := time.Parse(time.RFC3339, r.podOf(sandbox).Annotations[render.ActivityAnnotation])
	r.must(err)
	return at
}

// noPod expects a sandbox to be without a pod.
func (r trial) noPod(sandbox string) {
	r.Helper()
	list, err := r.cluster.Client.CoreV1().Pods(r.namespace).List(r.Context(), metav1.ListOptions{LabelSelector: render.SandboxIDLabel + "=" + sandbox})
	r.must(err)
	if len(list.Items) > 0 {
		r.Errorf("sandbox %s has a pod", sandbox)
	}
}

// records is how many sandboxes are noted down as stopped.
func (r trial) records() int {
	r.Helper()
	list, err := r.cluster.Client.CoreV1().ConfigMaps(r.namespace).List(r.Context(), metav1.ListOptions{LabelSelector: render.IdleLabel})
	r.must(err)
	return len(list.Items)
}

// TestIdleSandboxIsStopped: nobody uses it, it loses its pod and keeps its
// workspace, and stays so until somebody asks for it.
func TestIdleSandboxIsStopped(t *testing.T) {
	r := newTrial(t)
	const declared = "  a: {template: t, workspace: {size: 10Mi}, idle: {after: 30m, action: stop}}\n  b: {template: t}\n"
	file := r.file("", declared)
	r.done(r.run("apply", "--yes", "-f", file))
	r.done(r.run("exec", "a", "-f", file, "--", "sh", "-c", "echo kept >/workspace/note"))
	used := r.noted("a")
	r.noChanges(file)

	afterwards := r.later(31 * time.Minute)
	afterwards.unchanged(func() {
		o := afterwards.run("plan", "-f", file, "--detailed-exitcode")
		if o.code != 2 || !strings.Contains(o.stdout, "idle for 31m: stopped") {
			t.Errorf("the plan: exit code %d\n%s%s", o.code, o.stdout, o.stderr)
		}
	})
	afterwards.done(afterwards.run("exec", "a", "-f", file, "--", "true")) // in use: it stays
	if !r.noted("a").After(used.Add(30 * time.Minute)) {
		t.Errorf("that it is used is not noted: %s", r.noted("a"))
	}
	afterwards.noChanges(file)

	afterwards = r.later(62 * time.Minute)
	plan := t.TempDir() + "/fleet.plan"
	afterwards.done(afterwards.run("plan", "-f", file, "--out", plan))
	afterwards.done(afterwards.run("exec", "a", "-f", file, "--", "true"))
	r.refused(afterwards.run("apply", plan), failure.PlanStale)
	if r.records() > 0 {
		t.Error("a sandbox that is used is noted down as stopped")
	}

	afterwards = r.later(94 * time.Minute)
	afterwards.done(afterwards.run("apply", "--yes", "-f", file))
	r.noPod("a")
	r.noChanges(file)
	r.podOf("b")
	r.refused(r.run("exec", "a", "-f", file, "--", "true"), failure.PodNotFound, "idle since", "sandboxctl apply --start a")
	var status statusInfo
	o := r.done(r.run("status", "-f", file, "-o", "json"))
	r.must(json.Unmarshal([]byte(o.stdout), &status))
	if row := status.Sandboxes[0]; row.IdleSince == nil || !strings.HasPrefix(row.Reason, "stopped: idle since ") || !strings.Contains(status.Message, "1 sandbox is stopped, being idle") {
		t.Errorf("status: %s", o.stdout)
	}

	r.done(r.run("apply", "--yes", "-f", file, "--start", "a"))
	if o := r.done(r.run("exec", "a", "-f", file, "--", "cat", "/workspace/note")); o.stdout != "kept\n" {
		t.Errorf("the workspace has %q", o.stdout)
	}
	if r.records() > 0 {
		t.Error("it runs, and is noted down as stopped")
	}
	r.noChanges(file)

	afterwards = r.later(31 * time.Minute)
	afterwards.done(afterwards.run("apply", "--yes", "-f", file))
	r.noPod("a")
	r.file("", strings.Replace(declared, "a: {", "a: {labels: {x: y}, ", 1))
	r.done(r.run("apply", "--yes", "-f", file))
	r.podOf("a")
	if r.records() > 0 {
		t.Error("another entry starts it, and it is noted down as stopped")
	}
	r.noChanges(file)
	afterwards.done(afterwards.run("apply", "--yes", "-f", file))
	r.done(r.run("destroy", "--yes", "-f", file))
	if r.records() > 0 {
		t.Error("a record outlives its fleet")
	}
}

// TestIdleLooksAtTmux: a sandbox in whose terminals something happens goes on to
// run, although nobody has told its pod.
func TestIdleLooksAtTmux(t *testing.T) {
	r := newTrial(t)
	const declared = "  a: {template: t, idle: {after: 30m, action: stop}, sessions: {s: {windows: [{window_name: w, panes: [{shell_command: \"until [ -e end ]; do date; sleep 1; done\"}]}]}}}\n"
	file := r.file("", declared)
	r.done(r.run("apply", "--yes", "-f", file))
	r.eventually("tmux prints later than the pod knows", func(context.Context) bool {
		o := r.done(r.run("exec", "a", "-f", file, "--", "tmux", "display-message", "-p", "-t", "s", "#{window_activity}"))
		seconds, err := strconv.ParseInt(strings.TrimSpace(o.stdout), 10, 64)
		r.must(err)
		return time.Unix(seconds, 0).After(r.noted("a").Add(10 * time.Second))
	})
	before := r.noted("a")
	due := r
	due.now = func() time.Time { return before.Add(30*time.Minute + time.Second) }
	due.unchanged(func() { due.noChanges(file) })
	due.done(due.run("apply", "--yes", "-f", file))
	if at := r.noted("a"); !at.After(before) {
		t.Errorf("what was seen is not noted: %s, before %s", at, before)
	}
	r.done(r.run("exec", "a", "-f", file, "--", "touch", "end"))
	r.eventually("nothing is printed any more", func(context.Context) bool {
		return r.done(r.run("exec", "a", "-f", file, "--", "tmux", "display-message", "-p", "-t", "s", "#{pane_dead}")).stdout == "1\n"
	})
	afterwards := r.later(31 * time.Minute)
	afterwards.done(afterwards.run("apply", "--yes", "-f", file))
	r.noPod("a")
}

// TestIdlePlanIsOutdated: what a terminal prints after the plan was made keeps
// the sandbox, and does not keep later plans from stopping it.
func TestIdlePlanIsOutdated(t *testing.T) {
	r := newTrial(t)
	const declared = "  a: {template: t, idle: {after: 30m, action: stop}, sessions: {s: {windows: [{window_name: w, panes: [{shell_command: \"until [ -e go ]; do sleep 0.2; done; sleep 5; date\"}]}]}}}\n"
	file := r.file("", declared)
	r.done(r.run("apply", "--yes", "-f", file))
	r.done(r.run("exec", "a", "-f", file, "--", "touch", "go"))
	afterwards, plan := r.later(31*time.Minute), t.TempDir()+"/fleet.plan"
	if o := afterwards.done(afterwards.run("plan", "-f", file, "--out", plan)); !strings.Contains(o.stdout, "stopped") {
		t.Fatalf("the plan is %s", o.stdout)
	}
	r.eventually("the pane has printed", func(context.Context) bool {
		o := r.done(r.run("session", "ls", "a", "-f", file, "-o", "json")) // no use of the sandbox
		return strings.Contains(o.stdout, `"dead": true`)
	})
	used := r.noted("a")
	if o := afterwards.done(afterwards.run("status", "-f", file, "--sessions")); !r.noted("a").Equal(used) || !strings.Contains(o.stdout, "ended with exit status 0") {
		t.Errorf("looking is taken for use:\n%s", o.stdout)
	}
	r.refused(afterwards.run("apply", plan), failure.PlanStale)
	r.podOf("a")
	afterwards.done(afterwards.run("apply", "--yes", "-f", file))
	r.noPod("a")
}

// TestWatchStopsIdleSandboxes: and a command that runs keeps one from that.
func TestWatchStopsIdleSandboxes(t *testing.T) {
	r := newTrial(t)
	file := r.file("", "  a: {template: t, workspace: {size: 10Mi}, idle: {after: 10s, action: stop}}\n")
	w := r.watch(file)
	w.await("event", "ready", "sandbox", "a")
	used := r.podOf("a").UID
	r.done(r.run("exec", "a", "-f", file, "--", "sh", "-c", "echo kept >/workspace/note; sleep 14"))
	if r.podOf("a").UID != used {
		t.Error("it was stopped while it was in use")
	}
	w.await("event", "changed", "sandbox", "a", "kind", "Pod", "action", "delete")
	w.settled()
	r.noPod("a")
	for _, told := range w.seen {
		if strings.Contains(told, `"event":"drift"`) {
			t.Errorf("that it is stopped is no drift: %s", told)
		}
	}
	if n := r.records(); n != 1 {
		t.Errorf("%d records, want 1", n)
	}
	r.done(r.run("apply", "--yes", "-f", file, "--start", "a"))
	if o := r.done(r.run("exec", "a", "-f", file, "--", "cat", "/workspace/note")); o.stdout != "kept\n" {
		t.Errorf("the workspace has %q", o.stdout)
	}
	w.await("event", "changed", "sandbox", "a", "kind", "Pod", "action", "delete")
}
