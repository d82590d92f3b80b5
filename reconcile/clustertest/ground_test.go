//go:build integration

package clustertest_test

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/agentpane/sandboxctl/reconcile/clustertest"
)

// The tests of this package show that the ground which all others stand on is
// a real cluster: what they rely on is real here.

func TestNodeIsReady(t *testing.T) {
	cluster := clustertest.Connect(t)
	nodes, err := cluster.Client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(nodes.Items) == 0 {
		t.Fatal("the cluster has no nodes")
	}
	for _, node := range nodes.Items {
		ready := corev1.ConditionUnknown
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady {
				ready = condition.Status
			}
		}
		if ready != corev1.ConditionTrue {
			t.Errorf("node %s: Ready is %s", node.Name, ready)
		}
	}
}

func TestRestrictedPodAnswersThroughExec(t *testing.T) {
	cluster := clustertest.Connect(t)
	namespace := cluster.Namespace(t, map[string]string{"pod-security.kubernetes.io/enforce": "restricted"})
	pod := cluster.Run(t, restrictedPod(namespace))
	for _, command := range []struct{ run, want string }{
		{"tmux -V", "tmux 3"},
		{"id --user", "1000"},
		{"pwd", "/workspace"},
		{"git --version", "git version"},
		{"curl --version", "curl "},
	} {
		stdout, stderr, err := cluster.Exec(t.Context(), pod, strings.Fields(command.run)...)
		if err != nil || !strings.HasPrefix(stdout, command.want) {
			t.Errorf("%s: got %q, %q, %v; want it to start with %q", command.run, stdout, stderr, err, command.want)
		}
	}
}

func TestPodSecurityAdmissionRefusesPrivileged(t *testing.T) {
	cluster := clustertest.Connect(t)
	namespace := cluster.Namespace(t, map[string]string{"pod-security.kubernetes.io/enforce": "restricted"})
	pod := restrictedPod(namespace)
	privileged := true
	pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: &privileged}
	_, err := cluster.Client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "violates PodSecurity") {
		t.Errorf("got %v, want Pod Security admission to refuse it", err)
	}
}

func TestClusterDNSResolvesNames(t *testing.T) {
	cluster := clustertest.Connect(t)
	pod := cluster.Run(t, restrictedPod(cluster.Namespace(t, nil)))
	const name = "kubernetes.default.svc.cluster.local"
	service, err := cluster.Client.CoreV1().Services("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	stdout, stderr, err := cluster.Exec(t.Context(), pod, "getent", "hosts", name)
	if err != nil || !strings.HasPrefix(stdout, service.Spec.ClusterIP+" ") {
		t.Errorf("%s: got %q, %q, %v; want %s", name, stdout, stderr, err, service.Spec.ClusterIP)
	}
}

// restrictedPod is a pod of the sandbox image that the restricted profile
// admits.
func restrictedPod(namespace string) *corev1.Pod {
	yes, no, user := true, false, int64(1000)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "ground", Labels: map[string]string{"app": "ground"}},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken: &no,
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot:   &yes,
				RunAsUser:      &user,
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name:  "sandbox",
				Image: clustertest.SandboxImage,
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: &no,
					Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		},
	}
}

// pause keeps a check that Eventually repeats from asking all the time.
func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(500 * time.Millisecond):
	}
}
