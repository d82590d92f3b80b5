// Package clustertest gives integration tests the real cluster that `make
// test` brings up or SANDBOXCTL_TEST_KUBECONFIG names, and the few things that
// every such test does on it. Tests that use it carry the build tag
// integration; those that also need the test internet, which only the local
// cluster has, carry internet too. It is imported by tests only.
package clustertest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/tools/remotecommand"
)

// SandboxImage is the image that the test clusters have loaded.
const SandboxImage = "agentpane/agent-sandbox:dev"

// waitTimeout bounds every wait: a loaded machine takes its time, a broken
// cluster must not hold up the others for long.
const waitTimeout = 90 * time.Second

// Cluster is the cluster under test.
type Cluster struct {
	Config *rest.Config
	Client kubernetes.Interface
}

// Connect connects to the cluster. A test without one fails: what must not run
// without a cluster is kept out by its build tag.
func Connect(t *testing.T) Cluster {
	t.Helper()
	path := os.Getenv("SANDBOXCTL_TEST_KUBECONFIG")
	if path == "" {
		t.Fatal("SANDBOXCTL_TEST_KUBECONFIG names no cluster: run make test, or name one")
	}
	return ConnectTo(t, path)
}

// ConnectTo connects to the cluster of a kubeconfig.
func ConnectTo(t *testing.T, kubeconfig string) Cluster {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatalf("reading the kubeconfig: %v", err)
	}
	config.QPS = -1 // the server has its own limits
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatalf("connecting to the cluster: %v", err)
	}
	return Cluster{Config: config, Client: client}
}

// Namespace makes a namespace with a name of its own, and removes it after the
// test, with what a fleet in it has outside of namespaces.
func (c Cluster) Namespace(t *testing.T, labels map[string]string) string {
	t.Helper()
	namespace, err := c.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "sandboxctl-test-", Labels: labels},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("creating a namespace: %v", err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context()) // which has ended by now
		err := c.Client.CoreV1().Namespaces().Delete(ctx, namespace.Name, metav1.DeleteOptions{})
		if err = errors.Join(err, c.removeClusterRoles(ctx, namespace.Name)); err != nil {
			t.Errorf("removing namespace %s: %v", namespace.Name, err)
		}
	})
	return namespace.Name
}

// removeClusterRoles removes the cluster roles and bindings of the namespace's
// fleets: their names end in NAMESPACE.FLEET.
func (c Cluster) removeClusterRoles(ctx context.Context, namespace string) error {
	roles, err := c.Client.RbacV1().ClusterRoles().List(ctx, metav1.ListOptions{LabelSelector: "agentpane.io/managed=true"})
	if err != nil {
		return err
	}
	bindings, err := c.Client.RbacV1().ClusterRoleBindings().List(ctx, metav1.ListOptions{LabelSelector: "agentpane.io/managed=true"})
	if err != nil {
		return err
	}
	ours := func(name string) bool { return strings.Contains(name, "-"+namespace+".") }
	for _, role := range roles.Items {
		if ours(role.Name) {
			err = errors.Join(err, c.Client.RbacV1().ClusterRoles().Delete(ctx, role.Name, metav1.DeleteOptions{}))
		}
	}
	for _, binding := range bindings.Items {
		if ours(binding.Name) {
			err = errors.Join(err, c.Client.RbacV1().ClusterRoleBindings().Delete(ctx, binding.Name, metav1.DeleteOptions{}))
		}
	}
	return err
}

// Run creates a pod and waits until it is ready.
func (c Cluster) Run(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitTimeout)
	defer cancel()
	pods := c.Client.CoreV1().Pods(pod.Namespace)
	pod, err := pods.Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("creating the pod: %v", err)
	}
	watch, err := pods.Watch(ctx, metav1.ListOptions{
		FieldSelector:   fields.OneTermEqualSelector(metav1.ObjectNameField, pod.Name).String(),
		ResourceVersion: pod.ResourceVersion,
	})
	if err != nil {
		t.Fatalf("watching pod %s: %v", pod.Name, err)
	}
	defer watch.Stop()
	for event := range watch.ResultChan() {
		current, ok := event.Object.(*corev1.Pod)
		if !ok {
			t.Fatalf("watching pod %s: %v", pod.Name, event.Object)
		}
		pod = current
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
				return pod
			}
		}
	}
	status, _ := json.MarshalIndent(pod.Status, "", "  ") // for people to read
	t.Fatalf("pod %s is not ready after %s: %s", pod.Name, waitTimeout, status)
	return nil
}

// Exec runs a command in the pod's only container and returns what it printed;
// err is not nil when it could not be run or exited with another code than 0.
func (c Cluster) Exec(ctx context.Context, pod *corev1.Pod, command ...string) (stdout, stderr string, err error) {
	request := c.Client.CoreV1().RESTClient().Post().
		Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Command: command, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	executor, err := remotecommand.NewWebSocketExecutor(c.Config, "GET", request.URL().String())
	if err != nil {
		return "", "", err
	}
	var out, errOut bytes.Buffer
	err = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &errOut})
	return out.String(), errOut.String(), err
}

// betweenChecks leaves the machine to what the tests wait for.
const betweenChecks = 50 * time.Millisecond

// Eventually repeats check until it returns true.
func Eventually(t *testing.T, what string, check func(context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitTimeout)
	defer cancel()
	for !check(ctx) {
		select {
		case <-time.After(betweenChecks):
		case <-ctx.Done():
			t.Fatalf("after %s, still not: %s", waitTimeout, what)
		}
	}
}

// Internet holds the addresses of the test internet's hosts.
type Internet struct {
	// Allowed and Denied serve HTTP on 80 and 8080, HTTPS on 443 and 8443.
	Allowed, Denied string
	// Metadata serves HTTP on port 80, as a cloud's metadata service.
	Metadata string
	// Resolver serves DNS, and on port 80 tells which names were asked for.
	Resolver string
	// Private is as Allowed, at an address that is not the internet's.
	Private string
	// CA is the file of the certificate that signed the HTTPS servers'.
	CA string
}

// TestInternet returns the test internet of the local cluster.
func TestInternet(t *testing.T) Internet {
	t.Helper()
	content, err := os.ReadFile(os.Getenv("SANDBOXCTL_TEST_INTERNET"))
	if err != nil {
		t.Fatalf("reading SANDBOXCTL_TEST_INTERNET: %v", err)
	}
	var hosts Internet
	if err := json.Unmarshal(content, &hosts); err != nil {
		t.Fatalf("reading SANDBOXCTL_TEST_INTERNET: %v", err)
	}
	return hosts
}

// Kubeconfig writes a kubeconfig for that server, and returns its path. token and
// authority are empty where the server wants none.
func Kubeconfig(t testing.TB, server, token string, authority []byte) (path string) {
	t.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: authority}
	config.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: token}
	config.Contexts["c"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	config.CurrentContext = "c"
	path = filepath.Join(t.TempDir(), "config")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// Proxy has the cluster of that configuration answer by way of what before makes
// of its answers, until the test ends, and returns a kubeconfig for that.
func Proxy(t testing.TB, config *rest.Config, before func(http.Handler) http.Handler) (kubeconfig string) {
	t.Helper()
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	server, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(request *httputil.ProxyRequest) { request.SetURL(server) },
		Transport: transport, FlushInterval: -1,
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	listener := httptest.NewServer(before(proxy))
	t.Cleanup(func() { listener.CloseClientConnections(); listener.Close() })
	return Kubeconfig(t, listener.URL, "", nil)
}
