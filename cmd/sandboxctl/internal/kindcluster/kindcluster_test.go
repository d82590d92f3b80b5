package kindcluster

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/kind/pkg/cluster/nodes"
	"sigs.k8s.io/kind/pkg/exec"
)

const fullDefault = "docker.io/" + DefaultImage

// world is an engine, kind, and the Clusters under test.
type world struct {
	*Clusters
	engine *fakeEngine
	kind   *fakeKind
	log    *bytes.Buffer
}

func newWorld(t *testing.T) world {
	t.Setenv("TMPDIR", t.TempDir())
	engine := &fakeEngine{t: t, images: map[string]string{}}
	kind := &fakeKind{clusters: map[string][]nodes.Node{}}
	log := &bytes.Buffer{}
	return world{
		Clusters: newClusters(Engine{Name: "docker", run: engine.run}, kind, &progress{out: log}),
		engine:   engine, kind: kind, log: log,
	}
}

func options() Options {
	return Options{Name: "try", Image: DefaultImage, Kubeconfig: "config"}
}

func (w world) up(t *testing.T) Result {
	t.Helper()
	w.engine.calls, w.kind.calls = nil, nil
	result, err := w.Up(t.Context(), options())
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func expect[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func expectError(t *testing.T, err error, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("the error is to tell %q, and is: %v", part, err)
		}
	}
}

func TestUpFromNothing(t *testing.T) {
	w := newWorld(t)
	expect(t, "result", w.up(t), Result{Created: true, Loaded: true})
	expect(t, "engine", w.engine.calls, []string{"image", "build", "image", "save"})
	expect(t, "build context", w.engine.builtFrom, []string{"Dockerfile", "packages.txt", "setup.sh"})
	expect(t, "kind", w.kind.calls, []string{"create try"})
	expect(t, "the node's images", w.kind.clusters["try"][0].(*fakeNode).images, map[string]string{
		fullDefault: "node-built", "sandboxctl.invalid/image:built": "node-built",
	})
	expect(t, "progress", w.log.String(), ` • Building the image agentpane/agent-sandbox:dev  ...
 ✓ Building the image agentpane/agent-sandbox:dev
 • Loading the image agentpane/agent-sandbox:dev  ...
 ✓ Loading the image agentpane/agent-sandbox:dev
`)
}

func TestUpAgainChangesNothing(t *testing.T) {
	w := newWorld(t)
	w.up(t)
	w.log.Reset()
	expect(t, "result", w.up(t), Result{})
	expect(t, "engine", w.engine.calls, []string{"image"})
	expect(t, "kind", w.kind.calls, []string{"export try config"})
	expect(t, "progress", w.log.String(), "")
}

func TestUpLoadsAnImageThatWasBuiltAnew(t *testing.T) {
	w := newWorld(t)
	w.up(t)
	w.engine.images[fullDefault] = "anew"
	expect(t, "result", w.up(t), Result{Loaded: true})
	expect(t, "result", w.up(t), Result{})
}

func TestUpLoadsOnlyIntoNodesThatLackTheImage(t *testing.T) {
	w := newWorld(t)
	w.up(t)
	worker := newFakeNode("try-worker")
	w.kind.clusters["try"] = append(w.kind.clusters["try"], worker)
	expect(t, "result", w.up(t), Result{Loaded: true})
	expect(t, "loads into the first node", w.kind.clusters["try"][0].(*fakeNode).loads, 1)
	expect(t, "loads into the second", worker.loads, 1)
}

func TestUpWithAnImageOfOnesOwn(t *testing.T) {
	w := newWorld(t)
	o := options()
	o.Image = "example.org/mine:1"
	_, err := w.Up(t.Context(), o)
	expectError(t, err, "docker does not have the image example.org/mine:1: pull it or build it first", "no such image")
	expect(t, "kind", w.kind.calls, nil)

	w.engine.images["example.org/mine:1"] = "mine"
	if _, err := w.Up(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	expect(t, "the node's image", w.kind.clusters["try"][0].(*fakeNode).images["example.org/mine:1"], "node-mine")
}

func TestUpWhenTheBuildFails(t *testing.T) {
	w := newWorld(t)
	w.engine.buildErr = errors.New("no space left")
	_, err := w.Up(t.Context(), options())
	expectError(t, err, "building the image agentpane/agent-sandbox:dev: no space left")
	expect(t, "kind", w.kind.calls, nil)
	expect(t, "progress", strings.HasSuffix(w.log.String(), " ✗ Building the image agentpane/agent-sandbox:dev\n"), true)
}

func TestUpWhenSavingTheImageFails(t *testing.T) {
	w := newWorld(t)
	w.engine.saveErr = errors.New("no space left")
	_, err := w.Up(t.Context(), options())
	expectError(t, err, `the cluster "try" is up, but its image is not in it: saving the image agentpane/agent-sandbox:dev: no space left`)
	w.engine.saveErr = nil
	expect(t, "result of the next try", w.up(t), Result{Loaded: true})
}

func TestUpWhenTheArchiveDoesNotHaveTheImage(t *testing.T) {
	w := newWorld(t)
	w.engine.images["localhost/other:1"] = "other"
	node := newFakeNode("try-control-plane")
	archive := t.TempDir() + "/image.tar"
	if _, err := w.engine.run(t.Context(), "save", "--output", archive, "localhost/other:1"); err != nil {
		t.Fatal(err)
	}
	expectError(t, loadArchive(node, archive, fullDefault, "mark"), "exit status 1")
}

func TestUpWhenCreatingFails(t *testing.T) {
	for _, test := range []struct {
		name      string
		leaveHalf bool
		left      string
	}{
		{"and leaves nothing", false, "nothing is left of it"},
		{"and leaves a node", true, "`sandboxctl cluster down --name try --engine docker` removes what is left of it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.kind.leaveHalf = test.leaveHalf
			w.kind.createErr = &exec.RunError{
				Command: []string{"docker", "run"}, Output: []byte("pulling\nport is already allocated\n"), Inner: errors.New("exit status 125"),
			}
			_, err := w.Up(t.Context(), options())
			expectError(t, err, `creating the cluster "try" (`+test.left+")", "exit status 125:\n  pulling\n  port is already allocated")
		})
	}
}

func TestUpInterruptedWhileCreating(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan struct{})
	w.progress.out = writerFunc(func(line []byte) {
		if strings.HasPrefix(string(line), "Interrupted: ") {
			close(told)
		}
	})
	w.kind.creating = func() { cancel(); <-told }
	w.kind.createErr = errors.New("signal: interrupt")
	_, err := w.Up(ctx, options())
	expectError(t, err, "nothing is left of it", "signal: interrupt")
}

type writerFunc func(line []byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

func TestUpOnAClusterThatDoesNotWork(t *testing.T) {
	w := newWorld(t)
	w.up(t)
	w.kind.exportErr = errors.New("container is not running")
	_, err := w.Up(t.Context(), options())
	expectError(t, err, `the kubeconfig of the cluster "try"`, "`sandboxctl cluster down --name try --engine docker` removes it", "container is not running")
}

func TestDown(t *testing.T) {
	w := newWorld(t)
	w.up(t)
	for _, want := range []bool{true, false} {
		deleted, err := w.Down("try", "config")
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "deleted", deleted, want)
	}
	expect(t, "kind", w.kind.calls, []string{"create try", "delete try config", "delete try config"})

	w.kind.deleteErr = errors.New("permission denied")
	_, err := w.Down("try", "config")
	expectError(t, err, `deleting the cluster "try": permission denied`)
}

func TestConfigIsOneNodeThatRunsPods(t *testing.T) {
	nodes := config("kindest/node:v9").Nodes
	if len(nodes) != 1 || nodes[0].Role != "control-plane" || nodes[0].Image != "kindest/node:v9" {
		t.Errorf("nodes: %+v", nodes)
	}
}

func TestCheckName(t *testing.T) {
	for name, valid := range map[string]bool{
		"sandboxes": true, "a-1": true, strings.Repeat("a", 50): true,
		"": false, "Sandboxes": false, "-a": false, "a.b": false, "a b": false, strings.Repeat("a", 51): false,
	} {
		if err := CheckName(name); (err == nil) != valid {
			t.Errorf("CheckName(%q): %v", name, err)
		}
	}
}

func TestCheckImage(t *testing.T) {
	for name, valid := range map[string]bool{DefaultImage: true, "": false, "a b": false, "a@sha256:0": false} {
		if err := CheckImage(name); (err == nil) != valid {
			t.Errorf("CheckImage(%q): %v", name, err)
		}
	}
}

func TestFullName(t *testing.T) {
	for name, want := range map[string]string{
		"sandbox":                "docker.io/library/sandbox:latest",
		"sandbox:1":              "docker.io/library/sandbox:1",
		DefaultImage:             fullDefault,
		fullDefault:              fullDefault,
		"localhost/sandbox:1":    "localhost/sandbox:1",
		"localhost:5000/sandbox": "localhost:5000/sandbox:latest",
		"ghcr.io/a/b:1":          "ghcr.io/a/b:1",
	} {
		expect(t, name, fullName(name), want)
	}
}
