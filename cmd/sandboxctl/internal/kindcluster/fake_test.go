package kindcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"sigs.k8s.io/kind/pkg/cluster"
	"sigs.k8s.io/kind/pkg/cluster/nodes"
	"sigs.k8s.io/kind/pkg/exec"
)

// fakeKind has the clusters that it was told to create.
type fakeKind struct {
	clusters map[string][]nodes.Node
	calls    []string

	createErr, exportErr, deleteErr error
	leaveHalf                       bool   // a Create that fails leaves its node
	creating                        func() // runs inside Create
}

func (k *fakeKind) Create(name string, _ ...cluster.CreateOption) error {
	k.calls = append(k.calls, "create "+name)
	if k.creating != nil {
		k.creating()
	}
	if k.createErr == nil || k.leaveHalf {
		k.clusters[name] = []nodes.Node{newFakeNode(name + "-control-plane")}
	}
	return k.createErr
}

func (k *fakeKind) Delete(name, kubeconfig string) error {
	k.calls = append(k.calls, "delete "+name+" "+kubeconfig)
	if k.deleteErr == nil {
		delete(k.clusters, name)
	}
	return k.deleteErr
}

func (k *fakeKind) ExportKubeConfig(name, kubeconfig string, _ bool) error {
	k.calls = append(k.calls, "export "+name+" "+kubeconfig)
	return k.exportErr
}

func (k *fakeKind) ListInternalNodes(name string) ([]nodes.Node, error) {
	return k.clusters[name], nil
}

// fakeNode answers the commands with which kind's nodeutils load and name
// images, as containerd does.
type fakeNode struct {
	nodes.Node
	name   string
	images map[string]string // name → id
	loads  int
}

func newFakeNode(name string) *fakeNode {
	return &fakeNode{name: name, images: map[string]string{}}
}

func (n *fakeNode) String() string { return n.name }

func (n *fakeNode) Command(name string, args ...string) exec.Cmd {
	return &fakeCommand{node: n, line: append([]string{name}, args...), stdin: strings.NewReader(""), stdout: io.Discard}
}

type fakeCommand struct {
	exec.Cmd
	node   *fakeNode
	line   []string
	stdin  io.Reader
	stdout io.Writer
}

func (c *fakeCommand) SetStdin(r io.Reader) exec.Cmd  { c.stdin = r; return c }
func (c *fakeCommand) SetStdout(w io.Writer) exec.Cmd { c.stdout = w; return c }

func (c *fakeCommand) Run() error {
	last := c.line[len(c.line)-1]
	switch line := strings.Join(c.line, " "); {
	case line == "containerd config dump":
		_, err := io.WriteString(c.stdout, "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"overlayfs\"\n")
		return err
	case strings.Contains(line, " images import "):
		archive, err := io.ReadAll(c.stdin)
		if err != nil {
			return err
		}
		name, id, _ := strings.Cut(string(archive), " ")
		c.node.images[name] = id
		c.node.loads++
		return nil
	case strings.Contains(line, " images tag "):
		id, found := c.node.images[c.line[len(c.line)-2]]
		if !found {
			return &exec.RunError{Command: c.line, Output: []byte("ctr: image: not found\n"), Inner: errors.New("exit status 1")}
		}
		c.node.images[last] = id
		return nil
	case strings.HasPrefix(line, "crictl inspecti "):
		id, found := c.node.images[last]
		if !found {
			return errors.New("no such image")
		}
		var tags []string
		for name, other := range c.node.images {
			if other == id {
				tags = append(tags, name)
			}
		}
		return json.NewEncoder(c.stdout).Encode(map[string]any{"status": map[string]any{"id": id, "repoTags": tags}})
	default:
		return fmt.Errorf("the node was asked to run %q", line)
	}
}

// fakeEngine has images, each with the id that the engine gives it; an archive
// of one is its name and a node's id.
type fakeEngine struct {
	t      *testing.T
	images map[string]string // name → id
	calls  []string

	buildErr, saveErr error
	builtFrom         []string // the files of the folder that was built
}

func (e *fakeEngine) run(ctx context.Context, args ...string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	e.calls = append(e.calls, args[0])
	switch args[0] {
	case "image":
		id, found := e.images[args[2]]
		if !found {
			return nil, errors.New("no such image: " + args[2])
		}
		return json.Marshal([]map[string]string{{"Id": "sha256:" + id}})
	case "build":
		entries, err := os.ReadDir(args[3])
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			e.builtFrom = append(e.builtFrom, entry.Name())
		}
		if e.buildErr == nil {
			e.images[args[2]] = "built"
		}
		return nil, e.buildErr
	case "save":
		if e.saveErr != nil {
			return nil, e.saveErr
		}
		return nil, os.WriteFile(args[2], []byte(args[3]+" node-"+e.images[args[3]]), 0o600)
	}
	e.t.Errorf("the engine was asked to run %q", args)
	return nil, errors.ErrUnsupported
}
