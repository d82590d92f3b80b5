package build

import (
	"archive/tar"
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/agentpane/sandboxctl/testdata/cluster/image"
)

// product is the image of the project's own program, as its Dockerfile in
// examples/gateway-image makes it: the static program, a user who is not root,
// and nothing else. It is kept under the build IDs of all packages that are linked
// into the program, which Go's cache has at hand.
func (b Builder) product(ctx context.Context) (string, error) {
	const pkg = "./cmd/sandboxctl"
	packages, err := goCommand(ctx, b.Project, "list", "-export", "-deps", "-f", "{{.BuildID}}", pkg)
	if err != nil {
		return "", err
	}
	old, err := filepath.Glob(filepath.Join(b.Cache, "sandboxctl-image-*"))
	if err != nil {
		return "", err
	}
	archive, err := b.cached("sandboxctl-image", []string{packages, b.ProductReference}, func(path string) error {
		scratch, err := os.MkdirTemp("", "product-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(scratch)
		program, layer := filepath.Join(scratch, "sandboxctl"), filepath.Join(scratch, "layer")
		if _, err := goCommand(ctx, b.Project, "build", "-ldflags", strip, "-o", program, pkg); err != nil {
			return err
		}
		err = image.WriteTar(layer, func(archive *tar.Writer) error {
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
