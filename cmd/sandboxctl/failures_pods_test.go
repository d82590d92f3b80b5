//go:build integration

package main

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/agentpane/sandboxctl/reconcile/failure"
)

// TestImageThatCannotBePulled: the healthy neighbour is made ready all the same.
func TestImageThatCannotBePulled(t *testing.T) {
	r := newTrial(t)
	file := r.file("", "  a: {template: t, image: registry.invalid/nothing:1}\n  b: {template: t}\n")
	begun := time.Now()
	o := r.run("apply", "--yes", "-f", file, "--timeout", "110s")
	name := r.pod("a").Name
	r.refused(o, failure.ImagePullBackOff, "pod "+name+" (sandbox a) is not ready: ImagePullBackOff", "registry.invalid/nothing:1")
	if took := time.Since(begun); took > 100*time.Second {
		t.Errorf("it took %s, and is known sooner", took)
	}
	if !strings.Contains(o.stderr, "pod "+r.pod("b").Name+" (sandbox b) ready") || strings.Count(o.stderr, "Error: ") != 1 {
		t.Errorf("the other sandbox is not ready:\n%s", o.stderr)
	}

	// Nothing is left to change, and yet all is not well.
	r.unchanged(func() {
		r.refused(r.run("apply", "--yes", "-f", file, "--timeout", "110s"), failure.ImagePullBackOff, "pod "+name+" (sandbox a) is not ready")
	})
	r.done(r.run("apply", "--yes", "-f", file, "--no-wait"))

	r.file("", "  a: {template: t}\n  b: {template: t}\n")
	r.done(r.run("apply", "--yes", "-f", file))
	r.noChanges(file)
}

// TestPodThatCrashes: the last thing that it said is part of the reason, and
// cannot do anything to a terminal.
func TestPodThatCrashes(t *testing.T) {
	r := newTrial(t)
	file := r.file("", `  a:
    template: t
    pod: {containers: [{name: sandbox, command: [/bin/sh, -c, 'echo starting; printf "\033[31mno such model\033[0m\n"; exit 7']}]}
`)
	var o outcome
	r.eventually("it is known to crash", func(context.Context) bool { // at first, the kubelet may find it ready for a moment
		o = r.run("apply", "--yes", "-f", file)
		return o.code != 0
	})
	r.refused(o, failure.PodNotRunning, "CrashLoopBackOff", "exit code 7; its last line of output: [31mno such model[0m")
	if strings.Contains(o.stderr, "\x1b") || strings.Contains(o.stderr, "starting; ") {
		t.Errorf("more was printed than that:\n%q", o.stderr)
	}
}

func TestPodThatFitsNoNode(t *testing.T) {
	r := newTrial(t)
	file := r.file("limits: {max: {cpu: \"9000\", memory: 64Gi}, podMax: {cpu: \"9000\", memory: 64Gi}, min: {cpu: 10m, memory: 16Mi}}\n",
		"  a: {template: t, resources: {cpu: \"9000\", memory: 32Mi, requests: {cpu: \"9000\"}}}\n")
	o := r.run("apply", "--yes", "-f", file, "--timeout", "5s")
	r.refused(o, failure.PodStartupTimeout, "pod "+r.pod("a").Name+" (sandbox a) is not ready after 5s (--timeout), and goes on starting: Unschedulable", "Insufficient cpu",
		"(sandbox a) not ready in time\n", "sandboxctl status")
	begun := time.Now()
	o = r.run("apply", "--yes", "-f", file)
	r.refused(o, failure.InsufficientResources, "pod "+r.pod("a").Name+" (sandbox a) is not ready: Unschedulable", "Insufficient cpu")
	if took := time.Since(begun); took > 60*time.Second {
		t.Errorf("it took %s", took)
	}
}

// TestPodThatHasEnded: a pod that the kubelet ended, as it ends evicted ones,
// does not come back by itself.
func TestPodThatHasEnded(t *testing.T) {
	r := newTrial(t)
	file := r.file("", "  a: {template: t}\n  b: {template: t}\n")
	r.done(r.run("apply", "--yes", "-f", file))
	ended, other := r.pod("a"), r.pod("b")
	r.editPod(ended, "somebody", `{"spec": {"activeDeadlineSeconds": 1}}`)
	r.eventually("the pod has failed", func(context.Context) bool { return r.pod("a").Status.Phase == corev1.PodFailed })
	o := r.run("plan", "-f", file, "--detailed-exitcode")
	if o.code != 2 || !strings.Contains(o.stdout, "pod "+ended.Name+" (sandbox a) must be replaced: it has ended (DeadlineExceeded)") {
		t.Errorf("exit code %d\n%s%s", o.code, o.stdout, o.stderr)
	}
	r.done(r.run("apply", "--yes", "-f", file))
	if now := r.pod("a"); now.UID == ended.UID || now.Status.Phase != corev1.PodRunning {
		t.Errorf("the pod is %s, in phase %s", now.UID, now.Status.Phase)
	}
	if r.pod("b").UID != other.UID {
		t.Error("the other pod was replaced")
	}
	r.noChanges(file)
}

func TestPodThatWasDeleted(t *testing.T) {
	r := newTrial(t)
	file := r.file("", "  a: {template: t}\n  b: {template: t}\n")
	r.done(r.run("apply", "--yes", "-f", file))
	before := r.state()
	pods := r.cluster.Client.CoreV1().Pods(r.namespace)
	for _, grace := range []int64{0, 30} { // gone at once, and on its way out
		name := r.pod("a").Name
		r.must(pods.Delete(t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: &grace}))
		if o := r.run("plan", "-f", file, "--detailed-exitcode"); o.code != 2 || !strings.Contains(o.stdout, "pod "+name) {
			t.Errorf("exit code %d\n%s%s", o.code, o.stdout, o.stderr)
		}
		r.done(r.run("apply", "--yes", "-f", file))
		r.noChanges(file)
	}
	delete(before, "Pod "+r.pod("a").Name)
	after := r.state()
	delete(after, "Pod "+r.pod("a").Name)
	expectSame(t, before, after)
}

// TestMemoryThatRestarts: where a container's own policy has it start anew for
// another amount, the plan says so, and so it is.
func TestMemoryThatRestarts(t *testing.T) {
	r := newTrial(t)
	sandbox := func(memory string) string {
		return "  a: {template: t, resources: {memory: " + memory + "}, pod: {containers: [{name: sandbox, resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]}]}}\n"
	}
	file := r.file("", sandbox("32Mi"))
	r.done(r.run("apply", "--yes", "-f", file))
	before := r.pod("a")
	file = r.file("", sandbox("48Mi"))
	if o := r.done(r.run("apply", "--yes", "-f", file)); !strings.Contains(o.stdout, "will be changed, which restarts its container: ends every process and tmux session in it") {
		t.Error(o.stdout)
	}
	after := r.pod("a")
	if restarts := after.Status.ContainerStatuses[0].RestartCount; after.UID != before.UID || restarts != 1 {
		t.Errorf("want the same pod, restarted once: %s, %s, %d restarts", before.UID, after.UID, restarts)
	}
	r.noChanges(file)
}
