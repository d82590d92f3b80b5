//go:build integration && internet

package clustertest_test

import (
	"context"
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilexec "k8s.io/client-go/util/exec"

	"github.com/agentpane/sandboxctl/reconcile/clustertest"
)

// TestNetworkPolicyIsEnforced shows both that everything is reachable without
// a policy, so that a block is the policy's doing, and that a policy lets
// through what it names and nothing beside it.
func TestNetworkPolicyIsEnforced(t *testing.T) {
	cluster := clustertest.Connect(t)
	internet := clustertest.TestInternet(t)
	namespace := cluster.Namespace(t, nil)
	pod := cluster.Run(t, restrictedPod(namespace))

	allowed := "http://" + internet.Allowed
	denied := []string{
		"http://" + internet.Allowed + ":8080",
		"http://" + internet.Denied,
		"http://" + internet.Metadata,
	}
	for _, url := range append(denied, allowed) {
		clustertest.Eventually(t, url+" is reachable without a policy", func(ctx context.Context) bool {
			return reaches(ctx, t, cluster, pod, url)
		})
	}

	tcp, port := corev1.ProtocolTCP, intstr.FromInt32(80)
	_, err := cluster.Client.NetworkingV1().NetworkPolicies(namespace).Create(t.Context(), &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "allow-one"},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: pod.Labels},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
			Egress: []networkingv1.NetworkPolicyEgressRule{{
				To:    []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: internet.Allowed + "/32"}}},
				Ports: []networkingv1.NetworkPolicyPort{{Protocol: &tcp, Port: &port}},
			}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, url := range denied {
		clustertest.Eventually(t, url+" is blocked by the policy", func(ctx context.Context) bool {
			return !reaches(ctx, t, cluster, pod, url)
		})
	}
	if !reaches(t.Context(), t, cluster, pod, allowed) {
		t.Errorf("%s is blocked, though the policy allows it", allowed)
	}
}

// reaches tells whether an HTTP request out of the pod is answered. A request
// that could not be made is no answer to the question, and ends the test.
func reaches(ctx context.Context, t *testing.T, cluster clustertest.Cluster, pod *corev1.Pod, url string) bool {
	t.Helper()
	_, stderr, err := cluster.Exec(ctx, pod, "curl", "--silent", "--show-error", "--fail", "--max-time", "2", url)
	if err == nil {
		return true
	}
	const couldNotConnect, timedOut = 7, 28 // curl(1), EXIT CODES
	var exit utilexec.CodeExitError
	if !errors.As(err, &exit) || (exit.Code != couldNotConnect && exit.Code != timedOut) {
		t.Fatalf("requesting %s: %v: %s", url, err, stderr)
	}
	return false
}
