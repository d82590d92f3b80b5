package connection_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agentpane/sandboxctl/reconcile/connection"
	"github.com/agentpane/sandboxctl/reconcile/failure"
)

// kubeconfig is one whose only context has the given name.
func kubeconfig(name string) string {
	return strings.ReplaceAll(`apiVersion: v1
kind: Config
current-context: NAME
contexts:
- {name: NAME, context: {cluster: NAME-cluster, user: NAME-user, namespace: NAME-space}}
clusters:
- {name: NAME-cluster, cluster: {server: "https://NAME.example:6443"}}
users:
- {name: NAME-user, user: {token: hunter2}}
`, "NAME", name)
}

// machine is a machine with files in a folder of the test, and a home in it.
type machine struct {
	dir string
	env map[string]string
}

// newMachine writes files, by their paths below the machine's folder. "DIR" in
// the environment is that folder.
func newMachine(t *testing.T, files, env map[string]string) machine {
	t.Helper()
	m := machine{dir: t.TempDir(), env: map[string]string{}}
	for path, content := range files {
		path = filepath.Join(m.dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range env {
		m.env[name] = strings.ReplaceAll(value, "DIR", m.dir)
	}
	return m
}

func (m machine) finder() connection.Finder {
	return connection.Finder{
		LookupEnv:      func(name string) (string, bool) { value, ok := m.env[name]; return value, ok },
		Home:           filepath.Join(m.dir, "home"),
		ServiceAccount: filepath.Join(m.dir, "serviceaccount"),
	}
}

// everywhere returns a machine with a kubeconfig in each tier, all different.
func everywhere(t *testing.T) machine {
	t.Helper()
	return newMachine(t, map[string]string{
		"given":                    kubeconfig("given"),
		"own":                      kubeconfig("own"),
		"first":                    kubeconfig("first"),
		"second":                   kubeconfig("second"),
		"home/.kube/config":        kubeconfig("home"),
		"home/extra":               kubeconfig("extra"),
		"serviceaccount/token":     "hunter2",
		"serviceaccount/ca.crt":    "-",
		"serviceaccount/namespace": "inside\n",
	}, map[string]string{
		"KUBERNETES_SERVICE_HOST": "fd00::1",
		"KUBERNETES_SERVICE_PORT": "443",
	})
}

func TestFindTriesTheTiersInOrder(t *testing.T) {
	list := string(filepath.ListSeparator)
	for name, test := range map[string]struct {
		path, own, variable string // the variables are unset where these are ""
		withoutHome         bool
		tier                connection.Tier
		want                string // path below DIR, current context, contexts
	}{
		"given":                     {path: "DIR/given", own: "DIR/own", variable: "DIR/first", tier: connection.Given, want: "DIR/given given [given]"},
		"given below ~":             {path: "~/extra", own: "DIR/own", variable: "DIR/first", tier: connection.Given, want: "DIR/home/extra extra [extra]"},
		"own variable":              {own: "DIR/own", variable: "DIR/first", tier: connection.OwnVariable, want: "DIR/own own [own]"},
		"own variable below ~":      {own: "~/extra", tier: connection.OwnVariable, want: "DIR/home/extra extra [extra]"},
		"variable":                  {variable: "DIR/first", tier: connection.Variable, want: "DIR/first first [first]"},
		"variable, merged":          {variable: "DIR/first" + list + list + "DIR/second", tier: connection.Variable, want: "DIR/first" + list + "DIR/second first [first second]"},
		"variable, one missing":     {variable: "DIR/missing" + list + "DIR/second", tier: connection.Variable, want: "DIR/second second [second]"},
		"variable, only separators": {variable: list, tier: connection.Home, want: "DIR/home/.kube/config home [home]"},
		"home":                      {tier: connection.Home, want: "DIR/home/.kube/config home [home]"},
		"in-cluster":                {withoutHome: true, tier: connection.InCluster, want: "DIR/serviceaccount in-cluster [in-cluster]"},
	} {
		t.Run(name, func(t *testing.T) {
			m := everywhere(t)
			inDir := func(text string) string { return strings.ReplaceAll(text, "DIR", m.dir) }
			m.env["K8S_KUBECONFIG"], m.env["KUBECONFIG"] = inDir(test.own), inDir(test.variable)
			finder := m.finder()
			if test.withoutHome {
				finder.Home = ""
			}
			found, err := finder.Find(inDir(test.path))
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, context := range found.Contexts() {
				names = append(names, context.Name)
			}
			got := found.Path + " " + found.Current() + " [" + strings.Join(names, " ") + "]"
			if found.Tier != test.tier || got != inDir(test.want) {
				t.Errorf("got %s %s, want %s %s", found.Tier, got, test.tier, inDir(test.want))
			}
		})
	}
}

func TestFindMergesAsKubectl(t *testing.T) {
	m := newMachine(t, map[string]string{
		"first":  kubeconfig("shared"),
		"second": strings.ReplaceAll(kubeconfig("shared"), "shared.example", "other.example") + "# the first file's entry wins\n",
	}, map[string]string{"KUBECONFIG": "DIR/first" + string(filepath.ListSeparator) + "DIR/second"})
	found, err := m.finder().Find("")
	if err != nil {
		t.Fatal(err)
	}
	want := connection.Context{
		Name: "shared", Cluster: "shared-cluster", User: "shared-user", Namespace: "shared-space", Server: "https://shared.example:6443",
	}
	if got := found.Contexts(); len(got) != 1 || got[0] != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestFindFails(t *testing.T) {
	list := string(filepath.ListSeparator)
	for name, test := range map[string]struct {
		path  string
		files map[string]string // beside a good ~/.kube/config
		env   map[string]string
		alone bool // without that one
		want  string
	}{
		"given and missing":         {path: "DIR/missing", want: "K8S_KUBECONFIG_NOT_FOUND: there is no kubeconfig DIR/missing, which was asked for"},
		"given and missing below ~": {path: "~/missing", want: "K8S_KUBECONFIG_NOT_FOUND: there is no kubeconfig DIR/home/missing, which was asked for"},
		"given: a folder":           {path: "DIR/home", want: "K8S_KUBECONFIG_INVALID: kubeconfig DIR/home: it cannot be read: is a directory"},
		"own variable, missing":     {env: map[string]string{"K8S_KUBECONFIG": "DIR/missing"}, want: "K8S_KUBECONFIG_NOT_FOUND: there is no kubeconfig DIR/missing, which K8S_KUBECONFIG names"},
		"variable, all missing":     {env: map[string]string{"KUBECONFIG": "DIR/a" + list + "DIR/b"}, want: "K8S_KUBECONFIG_NOT_FOUND: there is no kubeconfig DIR/a" + list + "DIR/b, which KUBECONFIG names"},
		"no YAML":                   {path: "DIR/bad", files: map[string]string{"bad": "apiVersion: v1\nusers:\n- name: me\n  user: {token: hunter2\n"}, want: "K8S_KUBECONFIG_INVALID: kubeconfig DIR/bad, line 4: it is not valid YAML: did not find expected ',' or '}'"},
		"YAML with a tab":           {path: "DIR/bad", files: map[string]string{"bad": "users:\n- name: me\n\ttoken: hunter2\n"}, want: "K8S_KUBECONFIG_INVALID: kubeconfig DIR/bad, line 3: it is not valid YAML: found a tab character that violates indentation"},
		"no mapping":                {path: "DIR/bad", files: map[string]string{"bad": "hunter2"}, want: "K8S_KUBECONFIG_INVALID: kubeconfig DIR/bad: it does not have a kubeconfig's form"},
		"other types":               {path: "DIR/bad", files: map[string]string{"bad": "apiVersion: v1\nkind: Config\nusers: hunter2\n"}, want: "K8S_KUBECONFIG_INVALID: kubeconfig DIR/bad: it does not have a kubeconfig's form"},
		"another kind":              {path: "DIR/bad", files: map[string]string{"bad": "apiVersion: v1\nkind: Secret\nstringData: {token: hunter2}\n"}, want: "K8S_KUBECONFIG_INVALID: kubeconfig DIR/bad: it does not have a kubeconfig's form"},
		"second of two":             {files: map[string]string{"good": kubeconfig("good"), "bad": "{"}, env: map[string]string{"KUBECONFIG": "DIR/good" + list + "DIR/bad"}, want: "K8S_KUBECONFIG_INVALID: kubeconfig DIR/bad, line 1: it is not valid YAML"},
		"home":                      {alone: true, files: map[string]string{"home/.kube/config": "{"}, want: "K8S_KUBECONFIG_INVALID: kubeconfig DIR/home/.kube/config, line 1: it is not valid YAML"},
		"nothing anywhere":          {alone: true, want: "K8S_KUBECONFIG_NOT_FOUND: there is no kubeconfig: none was given"},
		"in a pod without a token":  {alone: true, env: map[string]string{"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}, want: "K8S_KUBECONFIG_NOT_FOUND: there is no kubeconfig, and this pod has no DIR/serviceaccount/token"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, test.files, test.env)
			if !test.alone {
				m = newMachine(t, with(test.files, "home/.kube/config", kubeconfig("home")), test.env)
			}
			_, err := m.finder().Find(strings.ReplaceAll(test.path, "DIR", m.dir))
			checkFailure(t, err, strings.ReplaceAll(test.want, "DIR", m.dir))
		})
	}
}

// checkFailure checks how the failure begins, and that it shows no secret.
func checkFailure(t *testing.T, err error, want string) {
	t.Helper()
	failed, ok := errors.AsType[*failure.Error](err)
	if !ok || !strings.HasPrefix(failed.Error(), want) {
		t.Fatalf("got %v, want %s", err, want)
	}
	if text := failed.Error() + failed.Hint; strings.Contains(text, "hunter2") {
		t.Errorf("shows a secret: %s", text)
	}
}

func with(files map[string]string, path, content string) map[string]string {
	more := map[string]string{path: content}
	for path, content := range files {
		more[path] = content
	}
	return more
}
