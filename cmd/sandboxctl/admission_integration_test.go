//go:build integration

package main

import (
	"context"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/agentpane/sandboxctl/reconcile/clustertest"
	"github.com/agentpane/sandboxctl/render"
)

// changeNewPods has admission give the trial's new pods another value of what
// sandboxctl applies, as AlwaysPullImages does; existing ones keep theirs.
func (r trial) changeNewPods() {
	r.Helper()
	admission, ctx := r.cluster.Client.AdmissionregistrationV1(), r.Context()
	meta := metav1.ObjectMeta{Name: r.namespace}
	r.Cleanup(func() {
		ctx := context.WithoutCancel(ctx)
		r.must(ignoreNotFound(admission.MutatingAdmissionPolicyBindings().Delete(ctx, r.namespace, metav1.DeleteOptions{})))
		r.must(ignoreNotFound(admission.MutatingAdmissionPolicies().Delete(ctx, r.namespace, metav1.DeleteOptions{})))
	})
	_, err := admission.MutatingAdmissionPolicies().Create(ctx, &admissionv1.MutatingAdmissionPolicy{
		ObjectMeta: meta,
		Spec: admissionv1.MutatingAdmissionPolicySpec{
			MatchConstraints:   r.newPods(),
			ReinvocationPolicy: admissionv1.NeverReinvocationPolicy,
			Mutations: []admissionv1.Mutation{{
				PatchType:          admissionv1.PatchTypeApplyConfiguration,
				ApplyConfiguration: &admissionv1.ApplyConfiguration{Expression: "Object{spec: Object.spec{terminationGracePeriodSeconds: 3}}"},
			}},
		},
	}, metav1.CreateOptions{})
	r.must(err)
	_, err = admission.MutatingAdmissionPolicyBindings().Create(ctx, &admissionv1.MutatingAdmissionPolicyBinding{
		ObjectMeta: meta, Spec: admissionv1.MutatingAdmissionPolicyBindingSpec{PolicyName: r.namespace},
	}, metav1.CreateOptions{})
	r.must(err)
	r.eventually("admission changes new pods", func(ctx context.Context) bool {
		pod, err := r.cluster.Client.CoreV1().Pods(r.namespace).Create(ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "trial"},
			Spec: corev1.PodSpec{
				SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: new(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
				Containers: []corev1.Container{{Name: "c", Image: clustertest.SandboxImage, SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				}}},
			},
		}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err == nil && *pod.Spec.TerminationGracePeriodSeconds == 3
	})
}

// TestAdmissionThatChangesNewPods: what admission makes of a new pod is how it
// is to be. It is not replaced for that, changes in place, and can be claimed.
func TestAdmissionThatChangesNewPods(t *testing.T) {
	r := newTrial(t)
	r.changeNewPods()
	const pool = "pools: {p: {template: t, min: 1, max: 2, autoscale: false}}\n"
	file := r.file(pool, oneSandbox)
	r.done(r.run("apply", "--yes", "-f", file))
	r.noChanges(file)
	first := r.podOf("a")
	if *first.Spec.TerminationGracePeriodSeconds != 3 {
		t.Fatalf("admission has left the pod as it was: %+v", first.Spec)
	}

	r.file(pool, "  a: {template: t, labels: {x: y}}\n  b: {pool: p}\n")
	r.done(r.run("apply", "--yes", "-f", file))
	if pod := r.podOf("a"); pod.UID != first.UID || pod.Labels["x"] != "y" {
		t.Errorf("it was to change in place: %s became %s, with labels %v", first.UID, pod.UID, pod.Labels)
	}
	if origin := r.podOf("b").Annotations[render.OriginAnnotation]; origin != render.Warm {
		t.Errorf("b was to have a warm pod, and started %s", origin)
	}
	r.noChanges(file)

	w := r.watch(file)
	w.settled()
	w.end()
	if pod := r.podOf("a"); pod.UID != first.UID {
		t.Error("watch has replaced it")
	}

	r.file(pool, "  a: {template: t, labels: {x: y}, env: {X: y}}\n  b: {pool: p}\n")
	r.done(r.run("apply", "--yes", "-f", file))
	if pod := r.podOf("a"); pod.UID == first.UID {
		t.Error("another environment needs another pod")
	}
	r.noChanges(file)
}
