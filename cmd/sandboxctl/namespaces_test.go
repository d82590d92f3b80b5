package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// namespacesRun is what a run of sandboxctl came to.
type namespacesRun struct {
	code           int
	stdout, stderr string
}

// runNamespacesWith runs sandboxctl with args against a server that answers all requests
// alike. It is the morning of 24 January 2026.
func runNamespacesWith(t *testing.T, status int, answer string, args ...string) namespacesRun {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		response.Header().Set("Content-Type", "application/json")
		response.WriteHeader(status)
		fmt.Fprint(response, strings.ReplaceAll(answer, "QUERY", request.URL.RawQuery))
	}))
	t.Cleanup(server.Close)
	path := filepath.Join(t.TempDir(), "config")
	kubeconfig := fmt.Sprintf(`{"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
		"clusters": [{"name": "c", "cluster": {"server": %q}}], "users": [{"name": "u", "user": {}}]}`, server.URL)
	if err := os.WriteFile(path, []byte(kubeconfig), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr strings.Builder
	code := run(t.Context(), append(args, "--kubeconfig", path), environment{
		stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr,
		now:       func() time.Time { return time.Date(2026, 1, 24, 10, 0, 0, 0, time.UTC) },
		lookupEnv: func(string) (string, bool) { return "", false },
	})
	return namespacesRun{code, stdout.String(), stderr.String()}
}

const namespaceList = `{"kind": "NamespaceList", "apiVersion": "v1", "metadata": {"remainingItemCount": 7}, "items": [
	{"metadata": {"name": "default", "creationTimestamp": "2026-01-23T10:00:00Z", "labels": {"query": "QUERY"}}, "status": {"phase": "Active"}},
	{"metadata": {"name": "old", "creationTimestamp": "2026-01-24T09:58:00Z"}, "status": {"phase": "Terminating"}}]}`

func TestNamespaces(t *testing.T) {
	want := namespacesRun{stdout: `NAME      STATUS        AGE
default   Active        24h
old       Terminating   2m
`, stderr: "2 of 9 namespaces; --limit lists up to 100\n"}
	got := runNamespacesWith(t, http.StatusOK, namespaceList, "namespaces", "--limit", "2")
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(namespacesRun{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestNamespacesJSON(t *testing.T) {
	got := runNamespacesWith(t, http.StatusOK, namespaceList, "namespaces", "-o", "json")
	const want = `{"formatVersion": "1", "total": 9, "namespaces": [
		{"name": "default", "status": "Active", "created": "2026-01-23T10:00:00Z", "labels": {"query": "limit=50"}},
		{"name": "old", "status": "Terminating", "created": "2026-01-24T09:58:00Z", "labels": null}]}`
	var wanted, printed any
	if err := json.Unmarshal([]byte(want), &wanted); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(got.stdout), &printed); err != nil {
		t.Fatalf("%v: %+v", err, got)
	}
	if diff := cmp.Diff(wanted, printed); diff != "" || got.stderr != "" || got.code != 0 {
		t.Errorf("%d, %q, (-want +got):\n%s", got.code, got.stderr, diff)
	}
}

func TestNamespacesForbidden(t *testing.T) {
	got := runNamespacesWith(t, http.StatusForbidden, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403,
		"message": "namespaces is forbidden: User \"eve\" cannot list resource \"namespaces\" in API group \"\" at the cluster scope"}`, "namespaces")
	want := namespacesRun{code: 1, stderr: `Error: K8S_NAMESPACE_ACCESS_DENIED: user eve may not list namespaces
  Have that verb and resource granted to the user by a role; check with: kubectl auth can-i list namespaces
`}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(namespacesRun{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
