//go:build integration

package clustertest_test

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/agentpane/sandboxctl/reconcile/clustertest"
)

// TestVolumeOutlivesItsPod: a claim without a class gets a volume that a
// restricted pod may write to, the pod after it reads what the first wrote, and
// the volume goes with its claim.
func TestVolumeOutlivesItsPod(t *testing.T) {
	cluster := clustertest.Connect(t)
	namespace := cluster.Namespace(t, map[string]string{"pod-security.kubernetes.io/enforce": "restricted"})
	claims := cluster.Client.CoreV1().PersistentVolumeClaims(namespace)
	claim, err := claims.Create(t.Context(), &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "ground"},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}

	first := cluster.Run(t, volumePod(namespace, "first", claim.Name))
	if _, stderr, err := cluster.Exec(t.Context(), first, "sh", "-c", "echo kept >/volume/file"); err != nil {
		t.Fatalf("writing to the volume: %v: %s", err, stderr)
	}
	pods := cluster.Client.CoreV1().Pods(namespace)
	if err := pods.Delete(t.Context(), first.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	clustertest.Eventually(t, "the first pod is gone", func(ctx context.Context) bool {
		defer pause(ctx)
		_, err := pods.Get(ctx, first.Name, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
	second := cluster.Run(t, volumePod(namespace, "second", claim.Name))
	stdout, stderr, err := cluster.Exec(t.Context(), second, "cat", "/volume/file")
	if err != nil || stdout != "kept\n" {
		t.Errorf("the second pod read %q, %q, %v from the volume; want what the first wrote", stdout, stderr, err)
	}

	claim, err = claims.Get(t.Context(), claim.Name, metav1.GetOptions{})
	if err != nil || claim.Status.Phase != corev1.ClaimBound {
		t.Fatalf("the claim is %q, %v; want it bound", claim.Status.Phase, err)
	}
	if err := claims.Delete(t.Context(), claim.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := pods.Delete(t.Context(), second.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	clustertest.Eventually(t, "the volume is gone", func(ctx context.Context) bool {
		defer pause(ctx)
		_, err := cluster.Client.CoreV1().PersistentVolumes().Get(ctx, claim.Spec.VolumeName, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

// volumePod is a pod that the restricted profile admits, with the claim's
// volume at /volume.
func volumePod(namespace, name, claim string) *corev1.Pod {
	pod := restrictedPod(namespace)
	pod.Name = name
	pod.Spec.SecurityContext.FSGroup = pod.Spec.SecurityContext.RunAsUser
	pod.Spec.Volumes = []corev1.Volume{{Name: "volume", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
	}}}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "volume", MountPath: "/volume"}}
	return pod
}
