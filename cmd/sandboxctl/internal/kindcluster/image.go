package kindcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/kind/pkg/cluster/nodes"
	"sigs.k8s.io/kind/pkg/cluster/nodeutils"

	"github.com/agentpane/sandboxctl/examples/image"
)

// DefaultImage is the image out of examples/image: the one that Up builds
// where the engine does not have it.
const DefaultImage = "agentpane/agent-sandbox:dev"

// CheckImage tells whether Up can load an image by that name.
func CheckImage(name string) error {
	if name == "" || strings.ContainsAny(name, "@ ") {
		return errors.New("want a name with a tag, without a digest: an archive of an image keeps no digest")
	}
	return nil
}

// fullName is what Kubernetes takes an image's name for. Engines are asked by
// it, because Podman would take a short name for one in localhost/.
func fullName(name string) string {
	host, _, found := strings.Cut(name, "/")
	switch {
	case !found:
		name = "docker.io/library/" + name
	case host != "localhost" && !strings.ContainsAny(host, ".:"):
		name = "docker.io/" + name
	}
	if !strings.Contains(path.Base(name), ":") {
		name += ":latest"
	}
	return name
}

// ensureImage makes sure that the engine has the image, and returns the
// engine's id of it. An image that is not the default one is not built: that
// would put this Dockerfile's content under somebody else's name.
func (c *Clusters) ensureImage(ctx context.Context, name string) (string, error) {
	full := fullName(name)
	id, err := c.imageID(ctx, full)
	if err == nil {
		return id, nil
	}
	if full != fullName(DefaultImage) {
		return "", fmt.Errorf("%s does not have the image %s: pull it or build it first, or leave it out for the image that sandboxctl builds: %w",
			c.engine.Name, full, err)
	}
	if err := c.progress.step("Building the image "+name, func() error { return c.build(ctx, full) }); err != nil {
		return "", fmt.Errorf("building the image %s: %w", name, err)
	}
	return c.imageID(ctx, full)
}

// imageID returns the engine's id of the image. Engines tell in many ways that
// they have no such image, so every failure counts as that.
func (c *Clusters) imageID(ctx context.Context, full string) (string, error) {
	out, err := c.engine.run(ctx, "image", "inspect", full)
	if err != nil {
		return "", err
	}
	var images []struct{ ID string }
	if err := json.Unmarshal(out, &images); err != nil {
		return "", fmt.Errorf("reading what %s tells of the image %s: %w", c.engine.Name, full, err)
	}
	if len(images) != 1 || images[0].ID == "" {
		return "", fmt.Errorf("%s tells no id of the image %s", c.engine.Name, full)
	}
	return strings.TrimPrefix(images[0].ID, "sha256:"), nil
}

func (c *Clusters) build(ctx context.Context, full string) error {
	return inTempDir(func(dir string) error {
		if err := os.CopyFS(dir, image.Context()); err != nil {
			return err
		}
		_, err := c.engine.run(ctx, "build", "--tag", full, dir)
		return err
	})
}

// load puts the image into the nodes that do not have it as the engine has it
// now, and returns whether there were any.
//
// The engine's id of an image is not the node's, so a node is told it: a second
// name of the image, which no registry can have, holds the id.
func (c *Clusters) load(ctx context.Context, all []nodes.Node, name, id string) (bool, error) {
	full, mark := fullName(name), "sandboxctl.invalid/image:"+id
	lacking := slices.DeleteFunc(slices.Clone(all), func(node nodes.Node) bool {
		names, err := nodeutils.ImageTags(node, mark)
		return err == nil && names[full]
	})
	if len(lacking) == 0 {
		return false, nil
	}
	return true, c.progress.step("Loading the image "+name, func() error {
		return inTempDir(func(dir string) error {
			archive := filepath.Join(dir, "image.tar")
			if _, err := c.engine.run(ctx, "save", "--output", archive, full); err != nil {
				return fmt.Errorf("saving the image %s: %w", name, err)
			}
			for _, node := range lacking {
				if err := loadArchive(node, archive, full, mark); err != nil {
					return kindError(fmt.Sprintf("loading the image %s into the node %s", name, node), err)
				}
			}
			return nil
		})
	})
}

func loadArchive(node nodes.Node, archive, full, mark string) error {
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := nodeutils.LoadImageArchive(node, file); err != nil {
		return err
	}
	return nodeutils.ReTagImage(node, full, mark)
}

// inTempDir runs do with a folder that is there for that long.
func inTempDir(do func(dir string) error) error {
	dir, err := os.MkdirTemp("", "sandboxctl-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	return do(dir)
}
