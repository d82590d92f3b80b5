//go:build integration

package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// gatewayService is the Service that the trial's pods have their DNS at.
func (r trial) gatewayService(ctx context.Context) (*corev1.Service, error) {
	return r.cluster.Client.CoreV1().Services(r.namespace).Get(ctx, render.GatewayService(&schema.Fleet{Name: "trial"}), metav1.GetOptions{})
}

// TestGatewayServiceThatIsDeleted: it comes again with the address that the pods
// have, whatever kind of pods these are, and none is replaced.
func TestGatewayServiceThatIsDeleted(t *testing.T) {
	t.Parallel()
	for name, parts := range map[string]struct{ pools, sandboxes string }{
		"sandboxes": {"", oneSandbox},
		"a pool":    {"pools: {p: {template: t, min: 1, max: 2, autoscale: false}}\n", "  {}\n"},
	} {
		for _, verb := range []string{"apply", "watch"} {
			t.Run(verb+" with "+name, func(t *testing.T) {
				r := newTrial(t)
				file := r.file("egress: {unenforced: allow, allow: [{host: one.example}]}\n"+parts.pools, parts.sandboxes)
				r.done(r.run("apply", "--yes", "--no-wait", "-f", file))
				service, err := r.gatewayService(t.Context())
				r.must(err)
				before := r.uids()
				var w *watching
				if verb == "watch" {
					w = r.watch(file)
					w.settled()
				}
				r.must(r.cluster.Client.CoreV1().Services(r.namespace).Delete(t.Context(), service.Name, metav1.DeleteOptions{}))
				if verb == "apply" {
					r.done(r.run("apply", "--yes", "--no-wait", "-f", file))
				}
				r.eventually("the Service is there again", func(ctx context.Context) bool {
					again, err := r.gatewayService(ctx)
					return err == nil && again.UID != service.UID && again.Spec.ClusterIP == service.Spec.ClusterIP
				})
				if w != nil {
					w.settled()
					w.end()
				}
				r.noChanges(file)
				for uid := range before {
					if !r.uids()[uid] {
						t.Errorf("a pod was replaced: %v became %v", before, r.uids())
					}
				}
			})
		}
	}
}

// uids are those of the sandboxes' pods, warm or not.
func (r trial) uids() map[types.UID]bool {
	r.Helper()
	pods, err := r.cluster.Client.CoreV1().Pods(r.namespace).List(r.Context(), metav1.ListOptions{LabelSelector: render.ComponentLabel + "!=" + render.GatewayComponent})
	r.must(err)
	uids := map[types.UID]bool{}
	for _, pod := range pods.Items {
		uids[pod.UID] = true
	}
	return uids
}

// TestAllowlistOfClaimedSandboxes: it is the one of the pool's template, as the
// file has it by now, and stays where the pool goes.
func TestAllowlistOfClaimedSandboxes(t *testing.T) {
	r := newTrial(t)
	const pool = "pools: {p: {template: t, min: 1, max: 3, autoscale: false}}\n"
	list := func(cidr string) string { return "egress: {unenforced: allow, allow: [{cidr: " + cidr + "}]}\n" }
	file := r.file(list("198.51.100.0/24")+pool, oneSandbox)
	r.done(r.run("apply", "--yes", "-f", file))
	r.done(r.run("claim", "--pool", "p", "--project", "x", "--name", "c", "-f", file))
	before := r.podOf("c")

	r.file(list("203.0.113.0/24")+pool, oneSandbox)
	if o := r.done(r.run("plan", "-f", file)); !strings.Contains(o.stdout, "the allowlist of pool p is another by now") {
		t.Errorf("the plan is\n%s", o.stdout)
	}
	r.done(r.run("apply", "--yes", "-f", file))
	r.noChanges(file)
	after := r.podOf("c")
	if after.UID != before.UID || after.Labels[render.EgressLabel] == before.Labels[render.EgressLabel] || after.Labels[render.EgressLabel] != r.podOf("a").Labels[render.EgressLabel] {
		t.Errorf("the claimed pod was %s with %v, and is %s with %v", before.UID, before.Labels, after.UID, after.Labels)
	}

	r.file(list("198.51.100.0/24"), oneSandbox)
	r.done(r.run("apply", "--yes", "-f", file))
	policies, err := r.cluster.Client.NetworkingV1().NetworkPolicies(r.namespace).List(t.Context(), metav1.ListOptions{})
	r.must(err)
	lists := map[string]bool{}
	for _, policy := range policies.Items {
		id, _ := render.AllowlistID(policy.Name)
		lists[id] = true
	}
	if now := r.podOf("c"); now.UID != before.UID || !lists[now.Labels[render.EgressLabel]] {
		t.Errorf("the pod is %s with %v, and there are lists %v", now.UID, now.Labels, lists)
	}
	r.done(r.run("release", "c", "-f", file))
	r.eventually("the released pod is gone, and nobody is under its list", func(context.Context) bool { return !r.uids()[before.UID] })
	r.done(r.run("apply", "--yes", "-f", file))
	r.noChanges(file)
}

// TestFileWithoutSandboxes leaves those that are there all that they live by.
func TestFileWithoutSandboxes(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"apply", "watch"} {
		t.Run(verb, func(t *testing.T) {
			r := newTrial(t)
			file := r.file("", "  a: {template: t, egress: {allow: [{host: one.example}]}}\n")
			r.done(r.run("apply", "--yes", "--no-wait", "-f", file))
			before := r.result(scenario{})
			file = r.file("", "  {}\n")
			if verb == "apply" {
				r.done(r.run("apply", "--yes", "--no-wait", "-f", file))
			} else {
				w := r.watch(file)
				w.settled()
				w.end()
			}
			after := r.result(scenario{})
			for name := range before {
				if after[name] == "" {
					t.Errorf("%s has gone", name)
				}
			}
			r.done(r.run("apply", "--yes", "--prune-all", "-f", file))
			for name := range r.result(scenario{}) {
				if strings.HasPrefix(name, "Pod of a") || strings.HasPrefix(name, "Service ") {
					t.Errorf("with --prune-all, %s stays", name)
				}
			}
		})
	}
}

// TestAllowlistOfAPodThatCame after the plan: it is not taken from it.
func TestAllowlistOfAPodThatCame(t *testing.T) {
	r := newTrial(t)
	const pool = "pools: {p: {template: t, min: 1, max: 3, autoscale: false}}\n"
	list := func(cidr string) string { return "egress: {unenforced: allow, allow: [{cidr: " + cidr + "}]}\n" }
	file := r.file(list("198.51.100.0/24")+pool, oneSandbox)
	r.done(r.run("apply", "--yes", "-f", file))
	content, err := os.ReadFile(file)
	r.must(err)
	older := filepath.Join(r.dir, "older.yaml")
	r.must(os.WriteFile(older, content, 0o600))

	r.file(list("203.0.113.0/24")+pool, oneSandbox)
	path, _ := r.save(file)
	r.done(r.run("claim", "--pool", "p", "--project", "x", "--name", "c", "-f", older))
	r.unchanged(func() {
		r.refused(r.run("apply", path), failure.PlanStale, "pod "+r.podOf("c").Name+" (sandbox c) came under an allowlist that is to go")
	})
	r.done(r.run("apply", "--yes", "-f", file))
	r.noChanges(file)
}
