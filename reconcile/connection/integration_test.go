//go:build integration

package connection_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"github.com/agentpane/sandboxctl/reconcile/clustertest"
	"github.com/agentpane/sandboxctl/reconcile/connection"
)

// connectReal connects to the cluster under test by our own means.
func connectReal(t *testing.T, path string) *connection.Cluster {
	t.Helper()
	found, err := (connection.Finder{LookupEnv: os.LookupEnv}).Find(path)
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := found.Connect(connection.Options{Version: "test", Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	return cluster
}

func TestRealCluster(t *testing.T) {
	real := clustertest.Connect(t)
	mine := real.Namespace(t, map[string]string{"purpose": "connection"})
	cluster := connectReal(t, os.Getenv("SANDBOXCTL_TEST_KUBECONFIG"))

	system, err := real.Client.CoreV1().Namespaces().Get(t.Context(), metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if uid, err := cluster.Identity(t.Context()); uid != system.UID || err != nil {
		t.Errorf("identity: got %q, %v; want %q", uid, err, system.UID)
	}
	server, err := real.Client.Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	if version, err := cluster.Version(t.Context()); version != server.GitVersion || err != nil {
		t.Errorf("version: got %q, %v; want %q", version, err, server.GitVersion)
	}
	first, total, err := cluster.Namespaces(t.Context(), 1)
	if err != nil || len(first) != 1 || total < 4 { // default, three of kube-*, and mine
		t.Errorf("one namespace: got %d of %d, %v", len(first), total, err)
	}
	all, _, err := cluster.Namespaces(t.Context(), 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, namespace := range all {
		if namespace.Name == mine {
			if namespace.Labels["purpose"] != "connection" || namespace.Status.Phase != corev1.NamespaceActive {
				t.Errorf("got labels %v, status %s", namespace.Labels, namespace.Status.Phase)
			}
			return
		}
	}
	t.Errorf("namespace %s is not listed", mine)
}

func TestRealClusterForbids(t *testing.T) {
	real := clustertest.Connect(t)
	namespace := real.Namespace(t, nil)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "nobody"}}
	if _, err := real.Client.CoreV1().ServiceAccounts(namespace).Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	token, err := real.Client.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), account.Name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	user := "system:serviceaccount:" + namespace + ":nobody"

	cluster := connectReal(t, kubeconfigFor(t, real.Config, token.Status.Token))
	_, _, err = cluster.Namespaces(t.Context(), 1)
	checkFailure(t, err, "K8S_NAMESPACE_ACCESS_DENIED: user "+user+" may not list namespaces")
	_, err = cluster.Identity(t.Context())
	checkFailure(t, err, "K8S_NAMESPACE_ACCESS_DENIED: user "+user+" may not get namespace kube-system")

	cluster = connectReal(t, kubeconfigFor(t, real.Config, "expired"))
	_, _, err = cluster.Namespaces(t.Context(), 1)
	checkFailure(t, err, "K8S_UNAUTHORIZED: the server does not accept the credentials of the kubeconfig's user")
}

// kubeconfigFor writes a kubeconfig for the server of config, and somebody with
// that token.
func kubeconfigFor(t *testing.T, config *rest.Config, token string) string {
	t.Helper()
	config = rest.CopyConfig(config)
	if err := rest.LoadTLSFiles(config); err != nil {
		t.Fatal(err)
	}
	path := t.TempDir() + "/config"
	content := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: u, user: {token: %q}}]
`, config.Host, base64.StdEncoding.EncodeToString(config.CAData), token)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRealStreams shows that what bounds the beginning of an answer leaves alone
// what has no end of its own: a watch, and a command in a pod, whose connection
// leaves HTTP behind.
func TestRealStreams(t *testing.T) {
	real := clustertest.Connect(t)
	namespace := real.Namespace(t, nil)
	cluster := connectReal(t, os.Getenv("SANDBOXCTL_TEST_KUBECONFIG"))
	pods := cluster.Client.Resource(corev1.SchemeGroupVersion.WithResource("pods")).Namespace(namespace)
	list, err := pods.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	watch, err := pods.Watch(t.Context(), metav1.ListOptions{ResourceVersion: list.GetResourceVersion()})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	pod := real.Run(t, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "stream"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "sandbox", Image: clustertest.SandboxImage}}},
	})
	through := clustertest.Cluster{Config: cluster.Config, Client: real.Client}
	stdout, stderr, err := through.Exec(t.Context(), pod, "echo", "done")
	if err != nil || stdout != "done\n" {
		t.Errorf("the command: got %q, %q, %v", stdout, stderr, err)
	}
	if err := real.Client.CoreV1().Pods(namespace).Delete(t.Context(), pod.Name, *metav1.NewDeleteOptions(0)); err != nil {
		t.Fatal(err)
	}
	for event := range watch.ResultChan() {
		if event.Type == apiwatch.Deleted {
			return
		}
	}
	t.Error("the watch ended before the pod did")
}
