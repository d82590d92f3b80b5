package connection_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentpane/sandboxctl/reconcile/connection"
	"github.com/agentpane/sandboxctl/reconcile/failure"
)

// several has contexts of many kinds; DIR is the folder that it is in.
const several = `apiVersion: v1
kind: Config
contexts:
- {name: kind-sandboxes, context: {cluster: good, user: token}}
- {name: staging, context: {cluster: good, user: token, namespace: team}}
- {name: no-cluster, context: {cluster: missing, user: token}}
- {name: no-user, context: {cluster: good, user: missing}}
- {name: no-authority, context: {cluster: no-authority, user: token}}
- {name: bad-authority, context: {cluster: bad-authority, user: token}}
- {name: bad-proxy, context: {cluster: bad-proxy, user: token}}
- {name: insecure, context: {cluster: insecure, user: token}}
- {name: plain, context: {cluster: plain, user: token}}
- {name: no-scheme, context: {cluster: no-scheme, user: token}}
- {name: proxy, context: {cluster: proxy, user: token}}
- {name: two-ways, context: {cluster: good, user: two-ways}}
clusters:
- {name: good, cluster: {server: "https://me:hunter2@api.example:6443"}}
- {name: no-authority, cluster: {server: "https://api.example", certificate-authority: missing.crt}}
- {name: bad-authority, cluster: {server: "https://api.example", certificate-authority-data: aHVudGVyMg==}}
- {name: bad-proxy, cluster: {server: "https://api.example", proxy-url: "odd://me:hunter2@proxy"}}
- {name: insecure, cluster: {server: "https://api.example", insecure-skip-tls-verify: true}}
- {name: plain, cluster: {server: "http://api.example:8080"}}
- {name: no-scheme, cluster: {server: "api.example:8080"}}
- {name: proxy, cluster: {server: "http://127.0.0.1:8001"}}
users:
- {name: token, user: {token: hunter2}}
- {name: two-ways, user: {token: hunter2, username: me, password: hunter2}}
`

func find(t *testing.T, content string) (*connection.Kubeconfig, string) {
	t.Helper()
	m := newMachine(t, map[string]string{"config": content}, nil)
	found, err := m.finder().Find(m.dir + "/config")
	if err != nil {
		t.Fatal(err)
	}
	return found, m.dir
}

func TestConnectFails(t *testing.T) {
	found, dir := find(t, several)
	for context, want := range map[string]string{
		"":              `K8S_KUBECONFIG_INVALID: kubeconfig DIR/config: it sets no current context`,
		"kind-sandbox":  `K8S_CONTEXT_NOT_FOUND: kubeconfig DIR/config does not have the context "kind-sandbox"`,
		"no-cluster":    `K8S_KUBECONFIG_INVALID: kubeconfig DIR/config: context "no-cluster" cannot be used: cluster "missing" was not found for context "no-cluster"; no server found for cluster "missing"`,
		"no-user":       `K8S_KUBECONFIG_INVALID: kubeconfig DIR/config: context "no-user" cannot be used: user "missing" was not found for context "no-user"`,
		"no-authority":  `K8S_KUBECONFIG_INVALID: kubeconfig DIR/config: context "no-authority" cannot be used: unable to read certificate-authority DIR/missing.crt for no-authority due to open DIR/missing.crt: no such file or directory`,
		"bad-authority": `K8S_KUBECONFIG_INVALID: kubeconfig DIR/config: context "bad-authority" cannot be used: unable to load root certificates`,
		"bad-proxy":     `K8S_KUBECONFIG_INVALID: kubeconfig DIR/config: context "bad-proxy" cannot be used: invalid 'proxy-url' "odd://proxy" for cluster "bad-proxy"`,
		"insecure":      `K8S_INSECURE_CONNECTION: kubeconfig DIR/config: its cluster "insecure" switches TLS verification off (insecure-skip-tls-verify)`,
		"plain":         `K8S_INSECURE_CONNECTION: kubeconfig DIR/config: its cluster "plain" has a server without TLS, http://api.example:8080`,
		"no-scheme":     `K8S_INSECURE_CONNECTION: kubeconfig DIR/config: its cluster "no-scheme" has a server without TLS, http://api.example:8080`,
		"two-ways":      `K8S_KUBECONFIG_INVALID: kubeconfig DIR/config: context "two-ways" cannot be used: more than one authentication method found for two-ways`,
	} {
		t.Run(context, func(t *testing.T) {
			_, err := found.Connect(connection.Options{Context: context})
			checkFailure(t, err, strings.ReplaceAll(want, "DIR", dir))
		})
	}
}

func TestConnectHelpsWithContexts(t *testing.T) {
	const all = "It has: bad-authority, bad-proxy, insecure, kind-sandboxes, no-authority, no-cluster, no-scheme, no-user, plain, proxy, staging, two-ways"
	found, _ := find(t, several)
	for context, want := range map[string]string{
		"":             "Name one with --context. " + all,
		"kind-sandbox": `Did you mean "kind-sandboxes"? ` + all,
		"x":            all,
	} {
		_, err := found.Connect(connection.Options{Context: context})
		failed, ok := errors.AsType[*failure.Error](err)
		if !ok || failed.Hint != want {
			t.Errorf("context %q: got %v, want the hint %q", context, failed, want)
		}
	}
	found, dir := find(t, several+"current-context: gone\n")
	_, err := found.Connect(connection.Options{})
	checkFailure(t, err, `K8S_CONTEXT_NOT_FOUND: kubeconfig `+dir+`/config does not have the current context "gone"`)
	found, dir = find(t, "")
	_, err = found.Connect(connection.Options{Context: "x"})
	checkFailure(t, err, `K8S_KUBECONFIG_INVALID: kubeconfig `+dir+`/config: it has no contexts`)
}

func TestConnect(t *testing.T) {
	found, _ := find(t, several+"current-context: kind-sandboxes\n")
	type result struct{ Context, Name, Server, Namespace string }
	for _, test := range []struct {
		options connection.Options
		want    result
	}{
		{connection.Options{}, result{"kind-sandboxes", "good", "https://api.example:6443", "default"}},
		{connection.Options{Context: "staging"}, result{"staging", "good", "https://api.example:6443", "team"}},
		{connection.Options{Context: "proxy"}, result{"proxy", "proxy", "http://127.0.0.1:8001", "default"}},
		{connection.Options{Context: "insecure", AllowInsecure: true}, result{"insecure", "insecure", "https://api.example", "default"}},
		{connection.Options{Context: "plain", AllowInsecure: true}, result{"plain", "plain", "http://api.example:8080", "default"}},
	} {
		cluster, err := found.Connect(test.options)
		if err != nil {
			t.Errorf("%+v: %v", test.options, err)
			continue
		}
		got := result{cluster.Context, cluster.Name, cluster.Server, cluster.Namespace}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", test.options, diff)
		}
	}
}

func TestContextsHideSecrets(t *testing.T) {
	found, _ := find(t, several)
	for _, context := range found.Contexts() {
		if strings.Contains(context.Server, "hunter2") {
			t.Errorf("context %s shows a password: %s", context.Name, context.Server)
		}
	}
}

func TestConnectInCluster(t *testing.T) {
	m := everywhere(t)
	finder := m.finder()
	finder.Home = ""
	found, err := finder.Find("")
	if err != nil {
		t.Fatal(err)
	}
	want := connection.Context{Name: "in-cluster", Cluster: "in-cluster", User: "in-cluster", Namespace: "inside", Server: "https://[fd00::1]:443"}
	if got := found.Contexts(); len(got) != 1 || got[0] != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	_, err = found.Connect(connection.Options{}) // with an authority that is none
	checkFailure(t, err, "K8S_KUBECONFIG_INVALID: kubeconfig "+m.dir+`/serviceaccount: context "in-cluster" cannot be used: unable to load root certificates`)
}
