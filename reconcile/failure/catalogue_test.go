package failure_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentpane/sandboxctl/reconcile/failure"
)

// agentPanes are AgentPane's codes, with their statuses and numbers.
const agentPanes = `
CLUSTER_UNREACHABLE 503 001
KUBECONFIG_NOT_FOUND 404 002
KUBECONFIG_INVALID 400 003
CONTEXT_NOT_FOUND 404 004
NAMESPACE_NOT_FOUND 404 100
NAMESPACE_CREATION_FAILED 500 101
NAMESPACE_ACCESS_DENIED 403 102
POD_NOT_FOUND 404 200
POD_CREATION_FAILED 500 201
POD_STARTUP_TIMEOUT 408 202
POD_DELETION_FAILED 500 203
POD_NOT_RUNNING 400 204
POD_ALREADY_EXISTS 409 205
EXEC_FAILED 500 300
EXEC_TIMEOUT 408 301
EXEC_CONNECTION_FAILED 503 302
IMAGE_PULL_FAILED 500 400
IMAGE_PULL_BACKOFF 500 401
IMAGE_NOT_FOUND 404 402
TMUX_SESSION_NOT_FOUND 404 500
TMUX_SESSION_EXISTS 409 501
TMUX_CREATION_FAILED 500 502
INSUFFICIENT_RESOURCES 400 600
API_ERROR 0 700
INTERNAL_ERROR 500 701
NETWORK_POLICY_CREATION_FAILED 500 800
NETWORK_POLICY_NOT_FOUND 404 801
NETWORK_POLICY_UPDATE_FAILED 500 802
NETWORK_POLICY_DELETION_FAILED 500 803
NETWORK_ISOLATION_UNSUPPORTED 500 804
SERVICE_ACCOUNT_CREATION_FAILED 500 900
ROLE_CREATION_FAILED 500 901
ROLE_BINDING_CREATION_FAILED 500 902
LIMIT_RANGE_CREATION_FAILED 500 903
POD_SECURITY_VIOLATION 400 1000
WARM_POOL_EMPTY 503 1100
WARM_POOL_EXHAUSTED 503 1101
WARM_POOL_ALLOCATION_FAILED 500 1102
WARM_POOL_NOT_ENABLED 400 1103
WARM_POD_NOT_FOUND 404 1104
WARM_POOL_DISCOVERY_FAILED 500 1105
`

func TestCatalogueHasAgentPanesCodes(t *testing.T) {
	got := map[string]string{}
	for _, entry := range failure.Catalogue() {
		if entry.Tracking != "" {
			got[string(entry.Code)] = fmt.Sprint(entry.Status, " ", entry.Tracking)
		}
	}
	want := map[string]string{}
	for row := range strings.Lines(strings.TrimSpace(agentPanes)) {
		field := strings.Fields(row)
		want["K8S_"+field[0]] = field[1] + " K8S-" + field[2]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("AgentPane's codes (-want +got):\n%s", diff)
	}
}

func TestCatalogueHasEveryCodeOnce(t *testing.T) {
	want := map[failure.Code]int{}
	for _, code := range declared(t) {
		want[code] = 1
	}
	got := map[failure.Code]int{}
	for _, entry := range failure.Catalogue() {
		got[entry.Code]++
		if entry.Title == "" || !strings.HasSuffix(entry.Meaning, ".") && !strings.HasSuffix(entry.Meaning, ")") || len(entry.Causes) == 0 || len(entry.Remedies) == 0 {
			t.Errorf("the entry of %s lacks something: %+v", entry.Code, entry)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("constants of codes.go (-want) and entries (+got):\n%s", diff)
	}
}

// declared are the values of the constants in codes.go.
func declared(t *testing.T) []failure.Code {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "codes.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var codes []failure.Code
	ast.Inspect(file, func(node ast.Node) bool {
		if literal, ok := node.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			code, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Fatal(err)
			}
			codes = append(codes, failure.Code(code))
		}
		return true
	})
	return codes
}

func TestLookup(t *testing.T) {
	for text, want := range map[string]failure.Code{
		"K8S_POD_NOT_FOUND":               failure.PodNotFound,
		"pod_not_found":                   failure.PodNotFound,
		"K8S-200":                         failure.PodNotFound,
		"K8S_TMUX_SESSION_EXISTS":         failure.TmuxSessionAlreadyExists,
		"K8S_TMUX_SESSION_ALREADY_EXISTS": failure.TmuxSessionAlreadyExists,
		"K8S_":                            "",
		"":                                "",
	} {
		if entry, ok := failure.Lookup(text); entry.Code != want || ok != (want != "") {
			t.Errorf("Lookup(%q) = %q, %v; want %q", text, entry.Code, ok, want)
		}
	}
}

func TestMessagesAreOneLineAndHoldNoPasswords(t *testing.T) {
	err := failure.New(failure.KubeconfigInvalid, failure.Object{}, "two\nlines, https://me:hunter2@proxy.example:1, %s", strings.Repeat("long ", 1000)).
		WithHint("see\nhttps://me:hunter2@proxy.example")
	if !strings.HasPrefix(err.Error(), "K8S_KUBECONFIG_INVALID: two lines, https://proxy.example:1, long") || len(err.Error()) > 1100 {
		t.Errorf("message %q", err)
	}
	if err.Hint != "see https://proxy.example" {
		t.Errorf("hint %q", err.Hint)
	}
}

func TestObjectString(t *testing.T) {
	for want, object := range map[string]failure.Object{
		"pod api in namespace team": {Kind: "Pod", Namespace: "team", Name: "api"},
		"pods in namespace team":    {Kind: "pods", Namespace: "team"},
		"namespace team":            {Kind: "Namespace", Name: "team"},
		"the object":                {},
	} {
		if got := object.String(); got != want {
			t.Errorf("%+v: got %q, want %q", object, got, want)
		}
	}
}
