//go:build integration

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/agentpane/sandboxctl/reconcile/clustertest"
	"github.com/agentpane/sandboxctl/render"
)

// pooled writes a fleet with a pool; env is the template's, workspace its
// workspace.
func (s *shell) pooled(env, workspace, pool, sandboxes string) {
	s.Helper()
	content := fmt.Sprintf(`apiVersion: agentpane.io/v1alpha1
kind: SandboxFleet
name: fleet
namespace: %s
limits: {min: {cpu: 10m, memory: 16Mi}}
egress: {unenforced: allow}
templates:
  t: {image: %s, resources: {cpu: 500m, memory: 32Mi, requests: {cpu: 10m, memory: 16Mi}}, workspace: %s, env: {FROM: %s}, egress: {allow: []}}
pools:
  p: {template: t, %s}
sandboxes:
%s`, s.namespace, clustertest.SandboxImage, workspace, env, pool, sandboxes)
	if err := os.WriteFile(s.file, []byte(content), 0o600); err != nil {
		s.Fatal(err)
	}
}

// pods are the namespace's pods, by their sandbox; warm ones are under "".
func (s *shell) pods() map[string][]corev1.Pod {
	s.Helper()
	list, err := s.cluster.Client.CoreV1().Pods(s.namespace).List(s.Context(), metav1.ListOptions{})
	if err != nil {
		s.Fatal(err)
	}
	pods := map[string][]corev1.Pod{}
	for _, pod := range list.Items {
		if pod.DeletionTimestamp == nil {
			id := pod.Labels[render.SandboxIDLabel]
			pods[id] = append(pods[id], pod)
		}
	}
	return pods
}

// settled applies until nothing changes any more.
func (s *shell) settled() {
	s.Helper()
	for range 5 {
		s.apply()
		if got := s.run("plan", "--detailed-exitcode"); got.code == 0 {
			return
		}
	}
	got := s.run("plan", "--pool-pods")
	s.Fatalf("there always is a change: %s%s", got.stdout, got.stderr)
}

func TestPool(t *testing.T) {
	s := newShell(t)
	s.pooled("file", "{emptyDir: 10Mi}", "min: 2, max: 5, autoscale: false", "  {}\n")
	s.expect(0, "pool p: 0 → 2 warm (2 to make)", "", "plan")
	s.apply()
	s.expect(0, "no changes", "", "plan", "--detailed-exitcode")
	s.expect(0, "Pool p: 2 of 2 warm pods ready, 0 claimed of at most 5.", "", "status")
	warm := map[string]bool{}
	for _, pod := range s.pods()[""] {
		warm[string(pod.UID)] = true
	}

	// A sandbox of the file adopts one; its own environment reaches it, and one
	// that asks for more starts cold.
	const sandboxes = `  api: {pool: p, project: shop, env: {OWN: "a b; $x"}}
  big: {pool: p, resources: {cpu: 600m}}
`
	s.pooled("file", "{emptyDir: 10Mi}", "min: 2, max: 5, autoscale: false", sandboxes)
	s.expect(0, "it adopts a warm pod of pool p", "", "plan")
	s.expect(0, "it starts cold: it asks for more than the pods of pool p have", "", "plan")
	s.apply()
	s.expect(0, "no changes", "", "plan", "--detailed-exitcode")
	s.expect(0, "no changes", "", "plan", "--detailed-exitcode", "--full")
	pods := s.pods()
	if len(pods["api"]) != 1 || !warm[string(pods["api"][0].UID)] || len(pods["big"]) != 1 || render.IsPoolPod(pods["big"][0].Name) || len(pods[""]) != 2 {
		t.Errorf("the pods are %v", pods)
	}
	s.expect(0, "file a b; $x\n", "", "exec", "api", "--", "sh", "-c", `echo "$FROM $OWN"`)

	// A program claims one, and again; apply leaves it alone.
	first := s.claim("--pool", "p", "--project", "shop", "--name", "run-1", "--env", "BRANCH=fix me")
	if first.Origin != "warm" || first.Again || first.Project != "shop" || first.Pod.UID == "" {
		t.Errorf("claimed %+v", first)
	}
	s.expect(0, "file fix me\n", "", "exec", "run-1", "--", "sh", "-c", `echo "$FROM $BRANCH"`)
	s.expect(0, "run-1 was claimed before, and lasts until", "run-1 is as it was claimed before; not taken over: --project, --env BRANCH, --ttl. To have it last longer: --renew.",
		"claim", "--pool", "p", "--name", "run-1", "--project", "other", "--env", "BRANCH=main", "--ttl", "2h")
	if again := s.claim("--pool", "p", "--name", "run-1"); again.Pod.UID != first.Pod.UID || !again.Again {
		t.Errorf("claimed again: %+v", again)
	}
	s.expect(1, "", "K8S_ADOPTION_REFUSED: sandbox api is the file's own", "claim", "--pool", "p", "--name", "api")
	s.expect(0, "pool p: 1 → 2 warm (1 to make)", "", "plan")
	s.settled()
	if got := s.pods(); len(got["run-1"]) != 1 || string(got["run-1"][0].UID) != string(first.Pod.UID) || len(got[""]) != 2 {
		t.Errorf("after an apply, the pods are %v", got)
	}
	s.expect(0, "run-1     shop      claimed, 59m left", "", "status")
	s.expect(1, "(sandbox run-1) will be deleted: ", "pass --yes", "destroy") // it is somebody's, and destroy ends it
	if status := s.status(); len(status.Pools) != 1 || status.Pools[0].AllocatedPods != 2 || len(status.Pools[0].Claims) != 1 || status.Pools[0].WarmPoolHits != 2 {
		t.Errorf("the pools are %+v", status.Pools)
	}

	// It is renewed to a moment from now, runs out, and the next apply ends it.
	if renewed := s.claim("--renew", "--name", "run-1"); renewed.Pod.UID != first.Pod.UID || !renewed.Again {
		t.Errorf("renewed: %+v", renewed)
	}
	s.expect(0, "run-1 lasts until", "", "claim", "--renew", "--name", "run-1", "--ttl", "1ms")
	clustertest.Eventually(t, "the claim has run out", func(context.Context) bool {
		return strings.Contains(s.run("plan").stdout, "ran out at")
	})
	s.settled()
	if got := s.pods(); len(got["run-1"]) != 0 || len(got["api"]) != 1 {
		t.Errorf("after the claim ran out, the pods are %v", got)
	}
	s.expect(0, `"totalAllocations": 3`, "", "pool", "ls", "-o", "json") // api's, the miss of big, and the one that is gone
	s.expect(1, "", "K8S_WARM_POD_NOT_FOUND", "release", "run-1")

	// One without a name, and its release.
	other := s.claim("--pool", "p")
	s.expect(0, other.Name+" is released", "", "release", other.Name)

	s.rolls(sandboxes)
	s.expect(0, "", "", "destroy", "--yes")
	if got := s.pods(); len(got) != 0 {
		t.Errorf("after destroy, there still is %v", got)
	}
}

func (s *shell) claim(args ...string) (claimed claimInfo) {
	s.Helper()
	got := s.run(append([]string{"claim", "-o", "json"}, args...)...)
	if got.code != 0 {
		s.Fatalf("claim %q: %d\n%s", args, got.code, got.stderr)
	}
	if err := json.Unmarshal([]byte(got.stdout), &claimed); err != nil {
		s.Fatal(err)
	}
	return claimed
}

// rolls changes the template, and watches that a ready warm pod is there all the
// time.
func (s *shell) rolls(sandboxes string) {
	s.settled()
	ctx, stop := context.WithCancel(s.Context())
	list, err := s.cluster.Client.CoreV1().Pods(s.namespace).List(ctx, metav1.ListOptions{LabelSelector: render.WarmStateLabel + "=" + render.Warm})
	if err != nil {
		s.Fatal(err)
	}
	events, err := s.cluster.Client.CoreV1().Pods(s.namespace).Watch(ctx, metav1.ListOptions{
		LabelSelector: render.WarmStateLabel + "=" + render.Warm, ResourceVersion: list.ResourceVersion,
	})
	if err != nil {
		s.Fatal(err)
	}
	ready := map[string]bool{}
	for i := range list.Items {
		ready[list.Items[i].Name] = true
	}
	watched := make(chan int, 1)
	go func() {
		least := len(ready)
		for event := range events.ResultChan() {
			pod, ok := event.Object.(*corev1.Pod)
			if !ok {
				continue
			}
			delete(ready, pod.Name)
			for _, condition := range pod.Status.Conditions {
				if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil && event.Type != watch.Deleted {
					ready[pod.Name] = true
				}
			}
			least = min(least, len(ready))
		}
		watched <- least
	}()
	s.pooled("changed", "{emptyDir: 10Mi}", "min: 2, max: 5, autoscale: false", strings.ReplaceAll(sandboxes, "  big: {pool: p, resources: {cpu: 600m}}\n", ""))
	s.settled()
	stop()
	events.Stop()
	if least := <-watched; least < 2 {
		s.Errorf("only %d warm pods were ready at some moment", least)
	}
	for _, pod := range s.pods()[""] {
		if pod.Spec.Containers[0].Env[0].Value != "changed" {
			s.Errorf("warm pod %s has the old template", pod.Name)
		}
	}
}

// TestPoolThatIsEmpty: a sandbox that finds no warm pod has one of its own, and
// counts as a miss, once.
func TestPoolThatIsEmpty(t *testing.T) {
	s := newShell(t)
	s.pooled("file", "{emptyDir: 10Mi}", "min: 0, max: 2, autoscale: false", "  api: {pool: p}\n")
	s.settled()
	if pods := s.pods()["api"]; len(pods) != 1 || render.IsPoolPod(pods[0].Name) {
		t.Errorf("api is %v", pods)
	}
	s.apply()
	var listed poolsInfo
	got := s.run("pool", "ls", "-o", "json")
	if err := json.Unmarshal([]byte(got.stdout), &listed); err != nil || len(listed.Pools) != 1 {
		t.Fatalf("%v: %s%s", err, got.stdout, got.stderr)
	}
	if p := listed.Pools[0]; p.WarmPoolMisses != 1 || p.TotalAllocations != 1 || p.WarmPoolHits != 0 || p.HitRatePercent != 0 {
		t.Errorf("the metrics are %+v", p)
	}
}

// TestPoolVolume: a warm pod's volume becomes the workspace of the sandbox that
// adopts the pod, and outlives it.
func TestPoolVolume(t *testing.T) {
	s := newShell(t)
	const pool = "min: 1, max: 3, autoscale: false"
	s.pooled("file", "{size: 10Mi, retain: true}", pool, "  {}\n")
	s.settled()
	s.pooled("file", "{size: 10Mi, retain: true}", pool, "  api: {pool: p}\n")
	s.settled()
	first := s.pods()["api"]
	if len(first) != 1 || !render.IsPoolPod(first[0].Name) {
		t.Fatalf("api is %v", first)
	}
	s.expect(0, "", "", "exec", "api", "--", "sh", "-c", "echo kept >/workspace/note")
	s.pooled("file", "{size: 10Mi, retain: true}", pool, "  api: {pool: p, state: stopped}\n")
	s.settled()
	if got := s.pods(); len(got["api"]) != 0 {
		t.Errorf("api is declared stopped, and is %v", got["api"])
	}
	s.pooled("file", "{size: 10Mi, retain: true}", pool, "  api: {pool: p}\n")
	s.settled()
	s.expect(0, "kept\n", "", "exec", "api", "--", "cat", "/workspace/note")
	second := s.pods()["api"]
	if len(second) != 1 || second[0].UID == first[0].UID {
		t.Fatalf("api is %v", second)
	}
	// Its pod dies, and it comes back.
	if err := s.cluster.Client.CoreV1().Pods(s.namespace).Delete(t.Context(), second[0].Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.settled()
	s.expect(0, "kept\n", "", "exec", "api", "--", "cat", "/workspace/note")
}

// TestClaimedVolume: a workspace that is to be retained is its claim's as long as
// that lasts, whatever else asks for it; and then it can be removed.
func TestClaimedVolume(t *testing.T) {
	s := newShell(t)
	const pools = "min: 1, max: 3, autoscale: false}\n  q: {template: t, min: 0, max: 3, autoscale: false"
	s.pooled("file", "{size: 10Mi, retain: true}", pools, "  a: {template: t, workspace: {emptyDir: 10Mi}}\n")
	s.settled()
	s.claim("--pool", "p", "--name", "x")
	volume := func() *corev1.PersistentVolumeClaim {
		list, err := s.cluster.Client.CoreV1().PersistentVolumeClaims(s.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: render.SandboxIDLabel + "=x"})
		if err != nil || len(list.Items) != 1 {
			t.Fatalf("%d volumes, %v", len(list.Items), err)
		}
		return &list.Items[0]
	}
	first := volume().Labels
	s.claim("--pool", "q", "--name", "x")
	if diff := cmp.Diff(first, volume().Labels); diff != "" {
		t.Errorf("another pool has made the volume its own: -before +after\n%s", diff)
	}
	s.settled()
	got := s.run("plan", "--delete-retained-workspaces")
	if got.code != 0 || !strings.Contains(got.stdout, "no changes") || strings.Contains(got.stdout, "retained") {
		t.Errorf("the plan, while it is claimed: %d\n%s%s", got.code, got.stdout, got.stderr)
	}
	s.expect(0, "", "", "release", "x")
	clustertest.Eventually(t, "the volume of a claim that has ended can be removed", func(context.Context) bool {
		return strings.Contains(uncoloured(s.run("plan", "--delete-retained-workspaces").stdout), "(sandbox x) will be deleted")
	})
}

// TestPoolShrinks though the status of its pods moves on after the plan was made.
func TestPoolShrinks(t *testing.T) {
	r := newTrial(t)
	const pools = "pools: {p: {template: t, min: %d, max: 3, autoscale: false}}\n"
	file := r.file(fmt.Sprintf(pools, 2), "  {}\n")
	r.done(r.run("apply", "--yes", "-f", file))
	r.file(fmt.Sprintf(pools, 1), "  {}\n")
	plan := filepath.Join(t.TempDir(), "fleet.plan")
	r.done(r.run("plan", "-f", file, "--out", plan))
	pods := r.cluster.Client.CoreV1().Pods(r.namespace)
	list, err := pods.List(t.Context(), metav1.ListOptions{})
	r.must(err)
	for _, pod := range list.Items {
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: "example.org/moved", Status: corev1.ConditionTrue})
		_, err := pods.UpdateStatus(t.Context(), &pod, metav1.UpdateOptions{})
		r.must(err)
	}
	if o := r.done(r.run("apply", plan)); !strings.Contains(o.stdout+o.stderr, "1 change made") {
		t.Errorf("the pool stays as it was: %s%s", o.stdout, o.stderr)
	}
	r.noChanges(file)
}
