//go:build integration

package main

import (
	"context"
	"os"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestDestroyKeepsWhatOthersHave: the namespace that the fleet made stays for as
// long as something of anybody else is in it, of whatever kind.
func TestDestroyKeepsWhatOthersHave(t *testing.T) {
	r := newTrial(t)
	file := r.file("", oneSandbox)
	content, err := os.ReadFile(file)
	r.must(err)
	own := r.namespace + "-own"
	r.must(os.WriteFile(file, []byte(strings.Replace(string(content), r.namespace, own, 1)), 0o600))
	namespaces := r.cluster.Client.CoreV1().Namespaces()
	t.Cleanup(func() {
		if err := ignoreNotFound(namespaces.Delete(context.Background(), own, metav1.DeleteOptions{})); err != nil {
			t.Error(err)
		}
	})
	r.done(r.run("apply", "--yes", "-f", file))
	deployments := r.cluster.Client.AppsV1().Deployments(own)
	labels := map[string]string{"app": "theirs"}
	_, err = deployments.Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "theirs"},
		Spec: appsv1.DeploymentSpec{
			Replicas: new(int32), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "none.invalid/none:1"}}},
			},
		},
	}, metav1.CreateOptions{})
	r.must(err)

	if o := r.done(r.run("destroy", "--yes", "-f", file)); !strings.Contains(o.stdout, "deployment theirs is in it, which is not this fleet's") {
		t.Errorf("destroy does not say why the namespace stays:\n%s", o.stdout)
	}
	if _, err := deployments.Get(t.Context(), "theirs", metav1.GetOptions{}); err != nil {
		t.Errorf("what others have is gone: %v", err)
	}
	r.must(deployments.Delete(t.Context(), "theirs", metav1.DeleteOptions{}))
	r.done(r.run("destroy", "--yes", "-f", file))
	r.eventually("the namespace is gone", func(ctx context.Context) bool {
		_, err := namespaces.Get(ctx, own, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}
