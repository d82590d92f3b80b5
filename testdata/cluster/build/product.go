package build

import (
	"archive/tar"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/agentpane/sandboxctl/testdata/cluster/image"
)

// product is the image of the project's own program, as its Dockerfile in
// examples/gateway-image makes it: the static program, a user who is not root,
// and nothing else. Go's cache makes it quick to build; it is kept under a hash
// of the program, as what it is made of is the whole tree.
func (b Builder) product(ctx context.Context) (string, error) {
	dir, err := os.MkdirTemp(b.Cache, "product-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "sandboxctl")
	cmd := exec.CommandContext(ctx, "go", "-C", b.Project, "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "./cmd/sandboxctl")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly -buildvcs=false", "GOWORK=off")
	if _, err := run(ctx, cmd); err != nil {
		return "", err
	}
	content, err := os.ReadFile(program)
	if err != nil {
		return "", err
	}
	old, err := filepath.Glob(filepath.Join(b.Cache, "sandboxctl-image-*"))
	if err != nil {
		return "", err
	}
	archive, err := b.cached("sandboxctl-image", []string{string(content), b.ProductReference}, func(path string) error {
		layer := path + ".layer"
		defer os.Remove(layer)
		err := image.WriteTar(layer, func(archive *tar.Writer) error {
			return image.AddFile(archive, "sandboxctl", program, 0o755)
		})
		if err != nil {
			return err
		}
		return image.Image{Reference: b.ProductReference, Entrypoint: []string{"/sandboxctl"}, User: "1000:1000", WorkingDir: "/"}.Write(path, layer)
	})
	if err != nil {
		return "", err
	}
	for _, path := range old { // each edit of the tree makes another
		if path != archive && !strings.HasSuffix(path, ".new") {
			if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
				return "", err
			}
		}
	}
	return archive, nil
}
