package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/agentpane/sandboxctl/reconcile/sandbox"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// loadFleet loads a fleet whose sandboxes are as given.
func loadFleet(t *testing.T, sandboxes string) *schema.Fleet {
	t.Helper()
	fleets, found := schema.Load([]string{"-"}, strings.NewReader(`apiVersion: agentpane.io/v1alpha1
kind: SandboxFleet
name: f
templates:
  t: {image: "example.org/image:1", resources: {cpu: "1", memory: 1Gi}, workspace: {emptyDir: 1Gi}}
sandboxes:
`+sandboxes))
	if found.HasErrors() {
		t.Fatal(found)
	}
	return fleets[0]
}

// fleetPod is a pod of a sandbox of the fleet, made at the given minute.
func fleetPod(fleet *schema.Fleet, name string, minute int, ready bool) corev1.Pod {
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: "pod-" + name, Namespace: fleet.Namespace, CreationTimestamp: metav1.Date(2026, 1, 24, 9, minute, 0, 0, time.UTC),
		Labels: map[string]string{
			render.PartOfLabel: render.ApplySetID(fleet), render.SandboxLabel: "true",
			render.SandboxIDLabel: name, render.ProjectIDLabel: "p",
		},
	}}
	pod.Status.Phase = corev1.PodPending
	if ready {
		pod.Status.Phase = corev1.PodRunning
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	}
	return pod
}

func TestStatusText(t *testing.T) {
	fleet := loadFleet(t, "  a: {template: t}\n  b: {template: t}\n  c: {template: t, state: stopped}\n  d: {template: t, project: q}\n  e: {template: t, state: stopped}\n")
	replaced := fleetPod(fleet, "a", 10, true)
	replaced.Name, replaced.DeletionTimestamp = "pod-a-old", new(metav1.Now())
	foreign := fleetPod(fleet, "x", 0, true)
	foreign.Labels[render.PartOfLabel] = "another"
	pulling := fleetPod(fleet, "b", 59, false)
	pulling.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{
		Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "\x1b[2Jno such host"},
	}}}
	info := statusInfo{Healthy: true, Fleet: "f", Namespace: fleet.Namespace, Context: "c", Server: "https://api.example", ServerVersion: "v1.37.2"}
	info.fill(fleet, sandbox.Observation{NamespaceExists: true, Applied: true, Pods: []corev1.Pod{
		replaced, fleetPod(fleet, "a", 0, true), pulling, foreign, fleetPod(fleet, "e", 0, true), fleetPod(fleet, "gone", 0, true),
	}})
	var out strings.Builder
	if err := info.print(&out, time.Date(2026, 1, 24, 10, 0, 0, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	const want = `Fleet f, namespace agentpane-sandboxes, context c, server https://api.example (v1.37.2):

SANDBOX   PROJECT   DECLARED       PHASE     READY   CPU   MEMORY   AGE   POD
a         a         running        Running   yes     1     1Gi      60m   pod-a
b         b         running        Pending   no      1     1Gi      60s   pod-b
c         c         stopped        -         no      1     1Gi      -     -
d         q         running        -         no      1     1Gi      -     -
e         e         stopped        Running   yes     1     1Gi      60m   pod-e
a         p         not any more   Running   no      -     -        50m   pod-a-old
gone      p         not any more   Running   yes     -     -        60m   pod-gone

  b: ErrImagePull: �[2Jno such host
  d: it has no pod: the next apply starts it
  e: it is declared to be stopped: the next apply stops it
  a: it is being deleted
  gone: the file no longer declares it: the next apply removes it
Health: the cluster is healthy; 1 of 3 sandboxes are ready; 2 pods are no longer declared.
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if *info.Pods != 6 || *info.PodsRunning != 5 {
		t.Errorf("%d pods, %d running", *info.Pods, *info.PodsRunning)
	}
}

func TestStatusHealth(t *testing.T) {
	one := loadFleet(t, "  a: {template: t}\n")
	for name, test := range map[string]struct {
		fleet *schema.Fleet
		seen  sandbox.Observation
		want  string
	}{
		"no namespace": {one, sandbox.Observation{}, "the cluster is healthy; the fleet is not applied yet, and namespace agentpane-sandboxes does not exist"},
		"not applied":  {one, sandbox.Observation{NamespaceExists: true}, "the cluster is healthy; the fleet is not applied yet"},
		"not ready":    {one, sandbox.Observation{NamespaceExists: true, Applied: true}, "the cluster is healthy; 0 of 1 sandbox is ready"},
		"ready": {one, sandbox.Observation{NamespaceExists: true, Applied: true, Pods: []corev1.Pod{fleetPod(one, "a", 0, true)}},
			"the cluster is healthy; 1 sandbox is ready"},
		"all stopped": {loadFleet(t, "  a: {template: t, state: stopped}\n"), sandbox.Observation{NamespaceExists: true, Applied: true},
			"the cluster is healthy; no sandbox is declared to run"},
	} {
		var info statusInfo
		info.Namespace = test.fleet.Namespace
		info.fill(test.fleet, test.seen)
		if info.Message != test.want {
			t.Errorf("%s: got %q, want %q", name, info.Message, test.want)
		}
	}
}

// TestStatusSessions: with --sessions, that there are none is said to programs,
// and people are shown no empty table.
func TestStatusSessions(t *testing.T) {
	for name, test := range map[string]struct {
		sessions []sessionInfo
		has      bool
	}{"not asked for": {nil, false}, "none": {[]sessionInfo{}, true}} {
		info := statusInfo{TmuxSessions: test.sessions}
		content, err := json.Marshal(info)
		if has := strings.Contains(string(content), `"tmuxSessions":[]`); err != nil || has != test.has {
			t.Errorf("%s: %s, %v", name, content, err)
		}
		var out strings.Builder
		if err := info.print(&out, time.Time{}); err != nil || strings.Contains(out.String(), "ATTACHED") {
			t.Errorf("%s: %v\n%s", name, err, out.String())
		}
	}
}

func TestShortLine(t *testing.T) {
	if got := shortLine("a\nHealth:\tgood\x1b[2J"); got != "a Health: good\ufffd[2J" {
		t.Errorf("got %q", got)
	}
	if got := []rune(shortLine(strings.Repeat("é", 500))); len(got) != 400 || got[399] != '…' {
		t.Errorf("got %d letters", len(got))
	}
}
