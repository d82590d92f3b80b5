package connection_test

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentpane/sandboxctl/reconcile/connection"
	"github.com/agentpane/sandboxctl/reconcile/failure"
)

// connect connects to a server at url. The authority is a part of the cluster's
// entry.
func connect(t *testing.T, url, authority string, timeout time.Duration) *connection.Cluster {
	t.Helper()
	found, _ := find(t, fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: test
contexts: [{name: test, context: {cluster: test, user: test}}]
clusters: [{name: test, cluster: {server: %q%s}}]
users: [{name: test, user: {token: hunter2}}]
`, url, authority))
	cluster, err := found.Connect(connection.Options{Version: "v1.2.3", Timeout: timeout, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	return cluster
}

// patient is a timeout that no server which answers runs into, however loaded
// the machine is.
const patient = time.Minute

// serve starts a server with TLS, and returns a connection that trusts it.
func serve(t *testing.T, handler http.HandlerFunc) *connection.Cluster {
	t.Helper()
	server := httptest.NewTLSServer(handler)
	t.Cleanup(server.Close)
	return connect(t, server.URL, trusting(server), patient)
}

func trusting(server *httptest.Server) string {
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return ", certificate-authority-data: " + base64.StdEncoding.EncodeToString(certificate)
}

func TestUnreachable(t *testing.T) {
	nothing := func(http.ResponseWriter, *http.Request) {}
	secure := httptest.NewUnstartedServer(http.HandlerFunc(nothing))
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are meant to fail
	secure.StartTLS()
	defer secure.Close()
	plain := httptest.NewServer(http.HandlerFunc(nothing))
	defer plain.Close()
	gone := httptest.NewServer(http.HandlerFunc(nothing))
	gone.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts, but nobody is there to answer
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	_, port, err := net.SplitHostPort(secure.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	slow := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) { <-request.Context().Done() }))
	defer slow.Close()

	// Only those that are to run into it have a short time.
	const short = 200 * time.Millisecond
	for name, test := range map[string]struct {
		url, authority string
		timeout        time.Duration
		want           string
	}{
		"refused":                {gone.URL, "", patient, "URL refuses the connection"},
		"accepts, never answers": {"https://" + silent.Addr().String(), "", short, "URL did not answer within 200ms"},
		"TLS, then silence":      {slow.URL, trusting(slow), short, "URL did not answer within 200ms"},
		"unknown authority":      {secure.URL, "", patient, "URL shows a certificate that is not trusted: x509: certificate signed by unknown authority"},
		"another name":           {"https://localhost:" + port, trusting(secure), patient, "URL shows a certificate for another name: x509: certificate is valid for example.com, *.example.com, not localhost"},
		"no TLS":                 {strings.Replace(plain.URL, "http:", "https:", 1), "", patient, "URL does not speak TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := connect(t, test.url, test.authority, test.timeout).Identity(t.Context())
			checkFailure(t, err, "K8S_CLUSTER_UNREACHABLE: "+strings.Replace(test.want, "URL", test.url, 1))
		})
	}
}

func TestClusterAsks(t *testing.T) {
	const list = `{"kind": "NamespaceList", "apiVersion": "v1", "metadata": {"continue": "c", "remainingItemCount": 7}, "items": [
		{"metadata": {"name": "default", "creationTimestamp": "2026-01-23T10:00:00Z", "labels": {"a": "b"}}, "status": {"phase": "Active"}},
		{"metadata": {"name": "old"}, "status": {"phase": "Terminating"}}]}`
	cluster := serve(t, func(response http.ResponseWriter, request *http.Request) {
		if got := request.Header.Get("User-Agent"); got != "sandboxctl/v1.2.3" {
			t.Errorf("user agent %q", got)
		}
		response.Header().Set("Content-Type", "application/json")
		response.Header().Set("Warning", `299 - "printed nowhere"`)
		switch request.URL.RequestURI() {
		case "/version":
			fmt.Fprint(response, `{"gitVersion": "v1.37.2"}`)
		case "/api/v1/namespaces/kube-system":
			fmt.Fprint(response, `{"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "kube-system", "uid": "4711"}}`)
		case "/api/v1/namespaces?limit=2":
			fmt.Fprint(response, list)
		default:
			t.Errorf("asked for %s", request.URL)
		}
	})
	if version, err := cluster.Version(t.Context()); version != "v1.37.2" || err != nil {
		t.Errorf("version: got %q, %v", version, err)
	}
	if uid, err := cluster.Identity(t.Context()); uid != "4711" || err != nil {
		t.Errorf("identity: got %q, %v", uid, err)
	}
	namespaces, total, err := cluster.Namespaces(t.Context(), 2)
	if err != nil || total != 9 {
		t.Fatalf("namespaces: got %d, %v", total, err)
	}
	var got []string
	for _, namespace := range namespaces {
		got = append(got, fmt.Sprint(namespace.Name, namespace.Status.Phase, namespace.Labels))
	}
	if diff := cmp.Diff([]string{"defaultActivemap[a:b]", "oldTerminatingmap[]"}, got); diff != "" {
		t.Errorf("namespaces (-want +got):\n%s", diff)
	}
}

func TestClusterFails(t *testing.T) {
	for name, test := range map[string]struct {
		code       int
		body, want string
	}{
		"forbidden":         {403, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"namespaces is forbidden: User \"eve\" cannot list resource \"namespaces\" in API group \"\" at the cluster scope","reason":"Forbidden","details":{"kind":"namespaces"},"code":403}`, "K8S_NAMESPACE_ACCESS_DENIED: user eve may not list namespaces"},
		"unauthorized":      {401, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401}`, "K8S_UNAUTHORIZED: the server does not accept the credentials"},
		"not a Kubernetes":  {404, "404 page not found", "K8S_API_ERROR: the server does not know where namespaces would be: is it a Kubernetes API server? (404)"},
		"a broken balancer": {503, "<html>", "K8S_API_ERROR: the server failed at namespaces: the server is currently unable to handle the request"},
	} {
		t.Run(name, func(t *testing.T) {
			cluster := serve(t, func(response http.ResponseWriter, _ *http.Request) {
				response.Header().Set("Content-Type", "application/json")
				response.WriteHeader(test.code)
				fmt.Fprint(response, test.body)
			})
			_, _, err := cluster.Namespaces(t.Context(), 1)
			checkFailure(t, err, test.want)
			if _, err := cluster.Version(t.Context()); failure.CodeOf(err) == "" {
				t.Errorf("version: got %v", err)
			}
		})
	}
}
