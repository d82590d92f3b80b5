package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"
)

// dockerScript is a Docker that has the images, and answers what kind
// asks of a cluster named sandboxes. It writes each of its command lines to
// $DOCKER_LOG; $DOCKER_NODES are the containers that run.
const dockerScript = `#!/bin/sh
echo "$*" >>"$DOCKER_LOG"
case "$*" in
"info --format {{.ServerVersion}}") echo 28.0.0 ;;
"info --format {{json .}}") echo '{"CgroupVersion":"2"}' ;;
"inspect --type=image kindest/node:"*) ;;
"ps -a --filter label=io.x-k8s.kind.cluster=sandboxes "*) [ -z "$DOCKER_NODES" ] || echo "$DOCKER_NODES" ;;
"inspect --format {{ index .Config.Labels \"io.x-k8s.kind.role\"}} "*) echo control-plane ;;
"inspect --format {{ index .Config.Labels \"desktop.docker.io/"*) ;;
"inspect --format {{ with "*) printf '127.0.0.1\t6443\n' ;;
"image inspect docker.io/agentpane/agent-sandbox:dev") echo '[{"Id":"sha256:abc"}]' ;;
"image inspect docker.io/agentpane/sandboxctl:dev") echo '[{"Id":"sha256:cba"}]' ;;
"exec --privileged sandboxes-control-plane crictl inspecti sandboxctl.invalid/image:cba")
	echo '{"status": {"id": "sha256:fed", "repoTags": ["docker.io/agentpane/sandboxctl:dev"]}}' ;;
"exec --privileged sandboxes-control-plane cat /etc/kubernetes/admin.conf") echo '{
	"clusters": [{"name": "c", "cluster": {"server": "https://internal:6443"}}],
	"users": [{"name": "u", "user": {}}],
	"contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}]
}' ;;
"exec --privileged sandboxes-control-plane crictl inspecti sandboxctl.invalid/image:abc")
	echo '{"status": {"id": "sha256:def", "repoTags": ["docker.io/agentpane/agent-sandbox:dev"]}}' ;;
"rm -f -v sandboxes-control-plane") ;;
*) echo "unexpected: $*" >&2; exit 1 ;;
esac
`

// fakeDocker makes dockerScript the only engine, and returns its log's path.
func fakeDocker(t *testing.T, nodes string) (log string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "docker"), []byte(dockerScript), 0o755); err != nil {
		t.Fatal(err)
	}
	log = filepath.Join(dir, "log")
	t.Setenv("PATH", dir)
	t.Setenv("DOCKER_LOG", log)
	t.Setenv("DOCKER_NODES", nodes)
	t.Setenv("K8S_KUBECONFIG", "")
	return log
}

// sandboxctl runs a command line and returns what it printed.
func sandboxctl(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(t.Context(), args, environment{stdin: strings.NewReader(""), stdout: &out, stderr: &err, now: time.Now, lookupEnv: os.LookupEnv})
	return code, out.String(), err.String()
}

func expectText(t *testing.T, what, got, want string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func expectDone(t *testing.T, code int, stderr string) {
	t.Helper()
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
}

func TestClusterUpWhereAllIsThere(t *testing.T) {
	log := fakeDocker(t, "sandboxes-control-plane")
	kubeconfig := filepath.Join(t.TempDir(), "config")

	code, stdout, stderr := sandboxctl(t, "cluster", "up", "--kubeconfig", kubeconfig)
	expectDone(t, code, stderr)
	expectText(t, "stdout", stdout, strings.ReplaceAll(`The cluster sandboxes was up already, with the image agentpane/agent-sandbox:dev: nothing to do.
Its context is kind-sandboxes, the current one of FILE.

To go on with it:
  kubectl --kubeconfig FILE --context kind-sandboxes get nodes
  kubectl --kubeconfig FILE --context kind-sandboxes run hello -it --rm --image agentpane/agent-sandbox:dev --command -- tmux
  sandboxctl cluster down --name sandboxes --engine docker --kubeconfig FILE
`, "FILE", kubeconfig))
	expectText(t, "stderr", stderr, "")

	config, err := clientcmd.LoadFromFile(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	expectText(t, "current context", config.CurrentContext, "kind-sandboxes")
	expectText(t, "server", config.Clusters["kind-sandboxes"].Server, "https://127.0.0.1:6443")

	asked, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for _, changing := range []string{"run ", "build ", "save ", "rm ", "import "} {
		if strings.Contains(string(asked), changing) {
			t.Errorf("nothing was to be done, and Docker was asked to:\n%s", asked)
		}
	}
}

func TestClusterUpJSON(t *testing.T) {
	fakeDocker(t, "sandboxes-control-plane")
	kubeconfig := filepath.Join(t.TempDir(), "config")
	t.Setenv("K8S_KUBECONFIG", kubeconfig)

	code, stdout, stderr := sandboxctl(t, "cluster", "up", "-o", "json")
	expectDone(t, code, stderr)
	var got map[string]any
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"formatVersion": "1", "name": "sandboxes", "context": "kind-sandboxes", "kubeconfig": kubeconfig,
		"engine": "docker", "image": "agentpane/agent-sandbox:dev", "created": false, "imageLoaded": false,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}
}

// The script knows no networks, which is as far as kind comes.
func TestClusterUpWhereCreatingFails(t *testing.T) {
	fakeDocker(t, "")
	code, stdout, stderr := sandboxctl(t, "cluster", "up", "--node-image", "kindest/node:v1", "--kubeconfig", filepath.Join(t.TempDir(), "config"))
	if code != 1 || stdout != "" {
		t.Errorf("exit code %d, stdout %q", code, stdout)
	}
	for _, want := range []string{
		"Creating cluster \"sandboxes\" ...\n • Ensuring node image (kindest/node:v1) 🖼️  ...\n",
		"\nError: creating the cluster \"sandboxes\" (nothing is left of it): failed to ensure docker network: ",
		"exit status 1:\n  unexpected: network ls ",
	} {
		if !strings.Contains(stderr, want) {
			t.Errorf("stderr is to have %q, and is:\n%s", want, stderr)
		}
	}
}

func TestClusterUpText(t *testing.T) {
	t.Setenv("K8S_KUBECONFIG", "")
	for want, info := range map[string]clusterUpInfo{
		"The cluster c is up, with the image i.":                        {Created: true, ImageLoaded: true},
		"The cluster c was up already; the image i was loaded into it.": {ImageLoaded: true},
	} {
		var out bytes.Buffer
		info.Name, info.Image, info.Context = "c", "i", "kind-c"
		flags := clusterFlags{output: outputText}
		if err := flags.printUp(environment{lookupEnv: os.LookupEnv, stdout: &out}, info); err != nil {
			t.Fatal(err)
		}
		first, rest, _ := strings.Cut(out.String(), "\n")
		expectText(t, "first line", first, want)
		if !strings.Contains(rest, "\n  kubectl --context kind-c get nodes\n") {
			t.Errorf("what to do next: %s", rest)
		}
	}
}

// TestClusterKubeconfig: the flag counts, then the variable.
func TestClusterKubeconfig(t *testing.T) {
	env := environment{lookupEnv: func(name string) (string, bool) { return "of " + name, true }}
	for want, flags := range map[string]clusterFlags{"of K8S_KUBECONFIG": {}, "given": {kubeconfig: "given"}} {
		expectText(t, "the kubeconfig", flags.explicitKubeconfig(env), want)
		expectText(t, "its file", flags.kubeconfigFile(env), want)
	}
}

func TestClusterDown(t *testing.T) {
	fakeDocker(t, "sandboxes-control-plane")
	kubeconfig := filepath.Join(t.TempDir(), "config")
	code, _, stderr := sandboxctl(t, "cluster", "up", "--kubeconfig", kubeconfig)
	expectDone(t, code, stderr)

	code, stdout, stderr := sandboxctl(t, "cluster", "down", "--kubeconfig", kubeconfig)
	expectDone(t, code, stderr)
	expectText(t, "stdout", stdout, "Deleted the cluster sandboxes of docker.\n")
	config, err := clientcmd.LoadFromFile(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	if len(config.Contexts) != 0 || config.CurrentContext != "" {
		t.Errorf("left in the kubeconfig: %v", config.Contexts)
	}
}

func TestClusterDownWhereNoneIs(t *testing.T) {
	fakeDocker(t, "")
	kubeconfig := filepath.Join(t.TempDir(), "config")
	code, stdout, stderr := sandboxctl(t, "cluster", "down", "--kubeconfig", kubeconfig)
	expectDone(t, code, stderr)
	expectText(t, "stdout", stdout, "There is no cluster sandboxes of docker: nothing to do.\n")

	code, stdout, stderr = sandboxctl(t, "cluster", "down", "--kubeconfig", kubeconfig, "-o", "json")
	expectDone(t, code, stderr)
	expectText(t, "stdout", stdout, `{
  "formatVersion": "1",
  "name": "sandboxes",
  "engine": "docker",
  "deleted": false
}
`)
}

func TestClusterWhereNoEngineAnswers(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, verb := range []string{"up", "down"} {
		code, stdout, stderr := sandboxctl(t, "cluster", verb)
		if code != 1 || stdout != "" {
			t.Errorf("exit code %d, stdout %q", code, stdout)
		}
		expectText(t, "stderr", stderr, `Error: no container engine answers:
  docker   not installed
  podman   not installed
  nerdctl  not installed
Start one of them, or install one. On Linux as root, `+"`make cluster-up`"+` in a checkout of sandboxctl
brings up a local test cluster without an engine. Or point sandboxctl at any cluster, with its kubeconfig.
`)
	}
	_, _, stderr := sandboxctl(t, "cluster", "up", "--engine", "podman")
	expectText(t, "stderr", stderr, "Error: --engine podman: not installed\n")
}

func TestClusterRefusesBadFlagsBeforeAnythingStarts(t *testing.T) {
	log := fakeDocker(t, "")
	for _, test := range []struct{ flag, value, want string }{
		{"--name", "Sandboxes", "want at most 50 of a-z, 0-9 and '-', with a letter or digit at both ends"},
		{"--engine", "rkt", "want one of docker, podman, nerdctl"},
		{"--image", "a@sha256:0", "want a name with a tag, without a digest: an archive of an image keeps no digest"},
	} {
		code, _, stderr := sandboxctl(t, "cluster", "up", test.flag, test.value)
		if code != 1 {
			t.Errorf("exit code %d", code)
		}
		expectText(t, "stderr", stderr, `Error: invalid argument "`+test.value+`" for "`+test.flag+`" flag: `+test.want+"\n")
	}
	if _, err := os.Stat(log); !os.IsNotExist(err) {
		t.Errorf("Docker was asked something: %v", err)
	}
}

func TestClusterCompletion(t *testing.T) {
	for flag, want := range map[string]string{
		"--engine": "docker\npodman\nnerdctl\n:4\n",
		"--wait":   "1m\n3m\n10m\n:4\n",
		"--name":   ":4\n",
		"--image":  ":4\n",
	} {
		_, stdout, _ := sandboxctl(t, "__complete", "cluster", "up", flag, "")
		expectText(t, flag, stdout, want)
	}
}
