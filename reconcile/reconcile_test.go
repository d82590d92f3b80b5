//go:build integration

package reconcile_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/agentpane/sandboxctl/reconcile"
	"github.com/agentpane/sandboxctl/reconcile/clustertest"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/render"
)

func TestApplyThenEdit(t *testing.T) {
	b := newBench(t)
	p := b.apply("  a: {template: t}\n  b: {template: t}\n", reconcile.Options{})
	if p.Count(plan.Create) != len(p.Changes) {
		t.Errorf("the first apply does more than create: %s", describe(p))
	}
	before := b.pods()

	// What is changed in place keeps the pod, and the processes in it.
	if _, _, err := b.cluster.Exec(t.Context(), b.pod("a"), "tmux", "new-session", "-d", "-s", "work"); err != nil {
		t.Fatal(err)
	}
	for _, edit := range []struct{ name, sandboxes string }{
		{"an allowlist", "  a: {template: t, egress: {allow: [{cidr: 198.51.100.0/24, ports: [80]}]}}\n  b: {template: t}\n"},
		{"a label", "  a: {template: t, labels: {x: y}}\n  b: {template: t}\n"},
		{"CPU and memory", "  a: {template: t, labels: {x: y}, resources: {cpu: 200m, memory: 96Mi}}\n  b: {template: t}\n"},
	} {
		p := b.apply(edit.sandboxes, reconcile.Options{})
		for _, change := range p.Changes {
			if change.Disruption != plan.None {
				t.Errorf("%s: %s brings a %s", edit.name, change.Ref, change.Disruption)
			}
		}
		if p.Empty() {
			t.Errorf("%s: no changes", edit.name)
		}
		if after := b.pods(); after["a"] != before["a"] {
			t.Errorf("%s: the pod was replaced", edit.name)
		}
	}
	if _, stderr, err := b.cluster.Exec(t.Context(), b.pod("a"), "tmux", "has-session", "-t", "work"); err != nil {
		t.Errorf("the tmux session has gone: %v: %s", err, stderr)
	}

	// An image restarts the container in the same pod.
	p = b.apply("  a: {template: t, image: docker.io/"+clustertest.SandboxImage+"}\n  b: {template: t}\n", reconcile.Options{})
	if len(p.Changes) != 1 || p.Changes[0].Disruption != plan.Restarts {
		t.Errorf("an image: %s", describe(p))
	}
	if after := b.pods(); after["a"] != before["a"] {
		t.Error("an image: the pod was replaced")
	}

	// An environment cannot change in place: the plan says so before.
	p = b.apply("  a: {template: t, env: {A: b}}\n  b: {template: t}\n", reconcile.Options{})
	if p.Count(plan.Replace) != 1 {
		t.Errorf("an environment: %s", describe(p))
	}
	if after := b.pods(); after["a"] == before["a"] || after["b"] != before["b"] {
		t.Error("an environment: want a replaced, and b left alone")
	}

	// A sandbox that is stopped has no pod.
	p = b.apply("  a: {template: t, state: stopped}\n  b: {template: t}\n", reconcile.Options{})
	if p.Count(plan.Delete) != 1 || len(b.pods()) != 1 {
		t.Errorf("a stopped sandbox: %s", describe(p))
	}
	b.apply("  a: {template: t}\n  b: {template: t}\n", reconcile.Options{})

	// What is no longer in the file goes, and nothing else.
	b.apply("  b: {template: t}\n", reconcile.Options{})
	if after := b.pods(); len(after) != 1 || after["b"] != before["b"] {
		t.Errorf("after removing a, the pods are %v", after)
	}
}

func TestDrift(t *testing.T) {
	b := newBench(t)
	const file = "  a: {template: t, labels: {x: y}}\n"
	b.apply(file, reconcile.Options{})
	pods := b.cluster.Client.CoreV1().Pods(b.namespace)
	edit := func(manager, patch string) {
		t.Helper()
		_, err := pods.Patch(t.Context(), b.pod("a").Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: manager})
		if err != nil {
			t.Fatal(err)
		}
	}

	edit("kubectl-edit", `{"metadata":{"labels":{"theirs":"1"}}}`)
	if _, p := b.plan(file, reconcile.Options{}); !p.Empty() {
		t.Errorf("a field of others: %s", describe(p))
	}
	edit("kubectl-edit", `{"metadata":{"labels":{"x":"z"}}}`)
	b.apply(file, reconcile.Options{})
	if labels := b.pod("a").Labels; labels["x"] != "y" || labels["theirs"] != "1" {
		t.Errorf("after the repair, the labels are %v", labels)
	}

	edit("some-controller", `{"metadata":{"labels":{"x":"z"}}}`)
	_, p := b.plan(file, reconcile.Options{})
	if len(p.Blocked()) != 1 || p.Changes[0].Conflicts[0].Manager != "some-controller" {
		t.Errorf("a field that a controller took: %s", describe(p))
	}
	b.apply(file, reconcile.Options{ForceConflicts: true})
	if got := b.pod("a").Labels["x"]; got != "y" {
		t.Errorf("after --force-conflicts, the label is %q", got)
	}

	if err := pods.Delete(t.Context(), b.pod("a").Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, p := b.plan(file, reconcile.Options{}); p.Empty() {
		t.Error("a pod that is being deleted is no change")
	}
	b.apply(file, reconcile.Options{})
}

func TestFleetsDoNotMeet(t *testing.T) {
	b := newBench(t)
	other := b
	other.name = "other"
	b.apply("  a: {template: t}\n", reconcile.Options{})
	other.apply("  a: {template: t}\n", reconcile.Options{})
	b.apply("  b: {template: t}\n", reconcile.Options{})
	if _, p := other.plan("  a: {template: t}\n", reconcile.Options{Full: true}); !p.Empty() {
		t.Errorf("the other fleet was changed: %s", describe(p))
	}

	fleet, _ := b.fleet("  b: {template: t}\n")
	p, err := b.reconciler.PlanDestroy(t.Context(), fleet, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.reconciler.Destroy(t.Context(), fleet, p, b.tell); err != nil {
		t.Fatal(err)
	}
	if _, p := b.plan("  b: {template: t}\n", reconcile.Options{}); p.Unchanged != 0 {
		t.Errorf("after destroy, %d objects are there", p.Unchanged)
	}
	if _, p := other.plan("  a: {template: t}\n", reconcile.Options{Full: true}); !p.Empty() {
		t.Errorf("destroy changed the other fleet: %s", describe(p))
	}
}

// TestAnEmptyFilePrunesNothing: deleting all lines of a file is more often a
// mishap than a wish.
func TestAnEmptyFilePrunesNothing(t *testing.T) {
	b := newBench(t)
	b.apply("  a: {template: t}\n", reconcile.Options{})
	before := b.pods()
	fleet, p := b.plan("  {}\n", reconcile.Options{})
	if _, err := b.reconciler.Apply(t.Context(), fleet, p, b.tell); err != nil {
		t.Fatal(err)
	}
	if after := b.pods(); after["a"] != before["a"] || len(p.Kept) == 0 {
		t.Errorf("the pods are %v, kept is %v", after, p.Kept)
	}
	b.apply("  {}\n", reconcile.Options{Prune: plan.Prune{All: true}})
	if after := b.pods(); len(after) != 0 {
		t.Errorf("with All, the pods are %v", after)
	}
}

func TestInterruptedApplyGoesOn(t *testing.T) {
	b := newBench(t)
	const file = "  a: {template: t}\n  b: {template: t}\n"
	fleet, p := b.plan(file, reconcile.Options{})
	ctx, interrupt := context.WithCancel(t.Context())
	result, err := b.reconciler.Apply(ctx, fleet, p, func(event reconcile.Event) {
		if event.Phase == reconcile.Done && event.Change.Ref.Kind == "NetworkPolicy" {
			interrupt()
		}
	})
	if !errors.Is(err, context.Canceled) || len(result.Done) == 0 || len(result.Left) == 0 ||
		len(result.Done)+len(result.Left) != len(p.Changes) {
		t.Fatalf("got %d done, %d left of %d, %v", len(result.Done), len(result.Left), len(p.Changes), err)
	}
	if pods := b.pods(); len(pods) != 0 {
		t.Errorf("pods were started: %v", pods)
	}
	if p := b.apply(file, reconcile.Options{}); len(p.Changes) != len(result.Left) {
		t.Errorf("the second apply makes %d changes, want the %d that were left", len(p.Changes), len(result.Left))
	}
}

func TestOneApplyAtATime(t *testing.T) {
	b := newBench(t)
	fleet, p := b.plan("  a: {template: t}\n", reconcile.Options{})
	second := newReconciler(t, b.cluster, "the second")
	var refused error
	_, err := b.reconciler.Apply(t.Context(), fleet, p, func(event reconcile.Event) {
		if event.Phase == reconcile.Started && event.Change.Ref.Kind == "Pod" {
			_, refused = second.Apply(t.Context(), fleet, p, b.tell)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if refused == nil || !strings.Contains(refused.Error(), "the test") {
		t.Errorf("the second apply: got %v, want an error that names who is at it", refused)
	}
	b.apply("  a: {template: t}\n", reconcile.Options{})
}

// TestLockOutlivesAFailure: that it could not be renewed once is not its loss.
func TestLockOutlivesAFailure(t *testing.T) {
	b := newBench(t)
	fleet, _ := b.fleet("  a: {template: t}\n")
	var renewals atomic.Int64
	renewed := make(chan struct{})
	b.cluster.Config = b.through(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
			if request.Method == http.MethodPatch && strings.HasSuffix(request.URL.Path, "/"+render.ParentName(fleet)) {
				switch renewals.Add(1) {
				case 1:
					http.Error(response, "not now", http.StatusServiceUnavailable)
					return
				case 2:
					defer close(renewed)
				}
			}
			next.ServeHTTP(response, request)
		})
	})
	locked, release, err := newReconciler(t, b.cluster, "the test").Lock(t.Context(), fleet)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-renewed:
	case <-locked.Done():
		t.Errorf("the lock is lost: %v", context.Cause(locked))
	}
	if err := release(); err != nil {
		t.Error(err)
	}
	if _, release, err = b.reconciler.Lock(t.Context(), fleet); err != nil {
		t.Fatalf("after the release: %v", err)
	}
	if err := release(); err != nil {
		t.Error(err)
	}
}

// through is the configuration for the cluster by way of a proxy.
func (b bench) through(before func(http.Handler) http.Handler) *rest.Config {
	b.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", clustertest.Proxy(b.T, b.cluster.Config, before))
	if err != nil {
		b.Fatal(err)
	}
	return config
}

func TestStalePlanIsRefused(t *testing.T) {
	b := newBench(t)
	b.apply("  a: {template: t}\n", reconcile.Options{})
	fleet, p := b.plan("  a: {template: t, labels: {x: y}}\n", reconcile.Options{})
	if err := b.reconciler.CheckFresh(t.Context(), p); err != nil {
		t.Fatalf("a fresh plan: %v", err)
	}
	_, err := b.cluster.Client.CoreV1().Pods(b.namespace).Patch(t.Context(), b.pod("a").Name, types.MergePatchType,
		[]byte(`{"metadata":{"labels":{"theirs":"1"}}}`), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.reconciler.CheckFresh(t.Context(), p); err == nil || !strings.Contains(err.Error(), b.pod("a").Name) {
		t.Errorf("got %v, want an error that names the pod", err)
	}
	if _, err := b.reconciler.Apply(t.Context(), fleet, p, b.tell); err == nil {
		t.Error("it was applied all the same")
	}
	if b.pod("a").Labels["x"] != "" {
		t.Error("it changed the pod")
	}
}
