//go:build integration

package main

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

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
