// Package kindcluster brings a kind cluster for a workstation up and down: one
// node, made by the container engine that answers, with the sandbox image
// loaded.
//
// It never installs or starts an engine, never pushes an image, and touches no
// cluster but the one that it is given the name of. It prints nothing but
// progress, to the writer that it is given.
//
// Creating a cluster needs an engine. The unit tests therefore go as far as
// the calls to kind and to the engine; the GitHub workflow (with Docker) makes
// a real cluster.
package kindcluster

import (
	"context"
	"fmt"
	"io"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"
	"sigs.k8s.io/kind/pkg/cluster"
	"sigs.k8s.io/kind/pkg/cluster/nodes"
)

// provider is the part of kind's *cluster.Provider that this package uses.
type provider interface {
	Create(name string, options ...cluster.CreateOption) error
	Delete(name, kubeconfig string) error
	ExportKubeConfig(name, kubeconfig string, internal bool) error
	ListInternalNodes(name string) ([]nodes.Node, error)
}

// Clusters brings clusters up and down with one engine.
type Clusters struct {
	engine   Engine
	kind     provider
	progress *progress
}

// New returns the Clusters of engine; progress is written to out.
func New(engine Engine, out io.Writer) *Clusters {
	log := &progress{out: out}
	return newClusters(engine, cluster.NewProvider(cluster.ProviderWithLogger(log), engine.provider()), log)
}

func newClusters(engine Engine, kind provider, log *progress) *Clusters {
	return &Clusters{engine: engine, kind: kind, progress: log}
}

// Options says which cluster Up brings up.
type Options struct {
	Name       string        // passes CheckName
	Image      string        // the sandbox image; passes CheckImage
	NodeImage  string        // the image of the node, and so the version of Kubernetes; empty: kind's own choice
	Program    string        // this program's file, for the gateway's image; empty: without that image
	Kubeconfig string        // the file that the cluster's context is merged into
	Wait       time.Duration // how long to wait for a new cluster to be ready; kind warns when it is not
}

// Result says what Up did.
type Result struct {
	Created bool // the cluster was not there before
	Loaded  bool // the image was not in it before, or not as the engine has it now
}

// CheckName tells whether a cluster can have the name.
func CheckName(name string) error {
	// kind's own limit: the node's host name is the cluster's with a suffix.
	const longest = 50
	if len(name) > longest || len(validation.IsDNS1123Label(name)) > 0 {
		return fmt.Errorf("want at most %d of a-z, 0-9 and '-', with a letter or digit at both ends", longest)
	}
	return nil
}

// Context returns the name of the cluster's context in the kubeconfig.
func Context(name string) string { return "kind-" + name }

// Up makes sure that the cluster is there, that its context is in the
// kubeconfig and current, and that its nodes have the image; where all is
// there it changes nothing. An image that is missing is built before the
// cluster is made, so that a build that fails leaves no cluster behind.
//
// Errors carry the last lines of what the engine printed, and say what is left
// to remove.
func (c *Clusters) Up(ctx context.Context, o Options) (Result, error) {
	nodes, err := c.kind.ListInternalNodes(o.Name)
	if err != nil {
		return Result{}, kindError(fmt.Sprintf("looking for the cluster %q", o.Name), err)
	}
	created := len(nodes) == 0
	if !created {
		if err := c.kind.ExportKubeConfig(o.Name, o.Kubeconfig, false); err != nil {
			return Result{}, kindError(fmt.Sprintf("merging the kubeconfig of the cluster %q, which is there "+
				"(where it is stopped or half made, %s removes it)", o.Name, c.downCommand(o.Name)), err)
		}
	}
	id, err := c.ensureImage(ctx, o.Image)
	if err != nil {
		return Result{}, err
	}
	if created {
		if nodes, err = c.create(ctx, o); err != nil {
			return Result{}, err
		}
	}
	loaded, err := c.load(ctx, nodes, o.Image, id)
	if err != nil {
		return Result{}, fmt.Errorf("the cluster %q is up, but its image is not in it: %w", o.Name, err)
	}
	if err := c.loadGateway(ctx, nodes, o); err != nil {
		return Result{}, fmt.Errorf("the cluster %q is up, but the egress gateway's image is not in it: %w", o.Name, err)
	}
	return Result{Created: created, Loaded: loaded}, nil
}

// create makes the cluster and returns its nodes.
func (c *Clusters) create(ctx context.Context, o Options) ([]nodes.Node, error) {
	// kind's Create takes no context. A Ctrl-C reaches the engine's commands
	// that it runs, too: the step fails, and kind deletes what it made.
	stop := context.AfterFunc(ctx, func() {
		c.progress.Warnf("Interrupted: kind stops where a step fails, and deletes what it made. "+
			"Interrupt again to stop at once; %s then removes what is left.", c.downCommand(o.Name))
	})
	defer stop()

	createErr := c.kind.Create(o.Name,
		cluster.CreateWithV1Alpha4Config(config(o.NodeImage)),
		cluster.CreateWithWaitForReady(o.Wait),
		cluster.CreateWithKubeconfigPath(o.Kubeconfig),
	)
	nodes, err := c.kind.ListInternalNodes(o.Name)
	if createErr != nil {
		left := "nothing is left of it"
		if err != nil || len(nodes) > 0 {
			left = c.downCommand(o.Name) + " removes what is left of it"
		}
		return nil, kindError(fmt.Sprintf("creating the cluster %q (%s)", o.Name, left), createErr)
	}
	if err != nil {
		return nil, kindError("listing the nodes of the new cluster", err)
	}
	return nodes, nil
}

// downCommand is the command line that removes the cluster.
func (c *Clusters) downCommand(name string) string {
	return fmt.Sprintf("`sandboxctl cluster down --name %s --engine %s`", name, c.engine.Name)
}

// config is the cluster that suits a workstation: one node, which kind lets
// run pods. All else is as kind has it, and that suits too: its network
// enforces NetworkPolicy, it brings a default StorageClass for workspaces, and
// the API server listens on 127.0.0.1 only.
func config(nodeImage string) *v1alpha4.Cluster {
	return &v1alpha4.Cluster{
		Nodes: []v1alpha4.Node{{Role: v1alpha4.ControlPlaneRole, Image: nodeImage}},
	}
}

// Down deletes the cluster and takes its context out of kubeconfig; an empty
// kubeconfig means the files that kubectl reads. It returns whether there was
// a cluster: where there is none, a context that was left behind still goes.
func (c *Clusters) Down(name, kubeconfig string) (bool, error) {
	nodes, err := c.kind.ListInternalNodes(name)
	if err != nil {
		return false, kindError(fmt.Sprintf("looking for the cluster %q", name), err)
	}
	if err := c.kind.Delete(name, kubeconfig); err != nil {
		return false, kindError(fmt.Sprintf("deleting the cluster %q", name), err)
	}
	return len(nodes) > 0, nil
}
