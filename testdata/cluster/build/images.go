package build

import (
	"archive/tar"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/agentpane/sandboxctl/testdata/cluster/image"
)

// PauseImage is the image of every pod's first process.
const PauseImage = "sandboxctl.local/pause:test"

// CoreDNSImage is the image of the cluster's DNS.
const CoreDNSImage = "sandboxctl.local/coredns:test"

// images builds the cluster's images and returns their archives.
func (b Builder) images(ctx context.Context, programs map[string]string) ([]string, error) {
	var archives []string
	for _, single := range []struct{ program, reference string }{
		{"pause", PauseImage},
		{"coredns", CoreDNSImage},
	} {
		archive, err := b.programImage(single.program, single.reference, programs[single.program])
		if err != nil {
			return nil, fmt.Errorf("building the %s image: %w", single.program, err)
		}
		archives = append(archives, archive)
	}
	archive, err := b.sandboxImage(ctx)
	if err != nil {
		return nil, fmt.Errorf("building the sandbox image: %w", err)
	}
	return append(archives, archive), nil
}

// programImage is an image that holds one static program and nothing else.
func (b Builder) programImage(name, reference, program string) (string, error) {
	return b.cached(name+"-image", []string{filepath.Base(program), reference}, func(path string) error {
		layer := path + ".layer"
		defer os.Remove(layer)
		err := image.WriteTar(layer, func(archive *tar.Writer) error {
			return image.AddFile(archive, name, program, 0o755)
		})
		if err != nil {
			return err
		}
		return image.Image{Reference: reference, Entrypoint: []string{"/" + name}}.Write(path, layer)
	})
}

// sandboxImage has the content of the Dockerfile in b.SandboxImage, without a
// container engine: mmdebstrap unpacks the packages, and the same script makes
// the user and the workspace.
func (b Builder) sandboxImage(ctx context.Context) (string, error) {
	packages := filepath.Join(b.SandboxImage, "packages.txt")
	setup := filepath.Join(b.SandboxImage, "setup.sh")
	inputs, err := contents(packages, setup)
	if err != nil {
		return "", err
	}
	return b.cached("sandbox-image", append(inputs, b.SandboxReference), func(path string) error {
		layer := path + ".layer"
		defer os.Remove(layer)
		if err := rootFilesystem(ctx, layer, packages, setup); err != nil {
			return err
		}
		return image.Image{
			Reference:  b.SandboxReference,
			Entrypoint: []string{"tini", "--", "sleep", "infinity"},
			User:       "1000:1000",
			WorkingDir: "/workspace",
			Env:        []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8"},
		}.Write(path, layer)
	})
}

// rootFilesystem writes a minimal Debian with the listed packages, after the
// script setup has run in it, to the tar file path.
func rootFilesystem(ctx context.Context, path, packages, setup string) error {
	list, err := os.ReadFile(packages)
	if err != nil {
		return err
	}
	sources, suite, err := aptSources(ctx)
	if err != nil {
		return err
	}
	script, err := filepath.Abs(setup)
	if err != nil {
		return err
	}
	args := []string{"--quiet", "--format=tar", "--variant=minbase",
		"--include=" + strings.Join(strings.Fields(string(list)), ","),
		`--aptopt=APT::Install-Recommends "false"`,
		// The hook is a shell command that is given the root's path; the
		// script reaches it by the environment, whatever its path holds.
		`--customize-hook=chroot "$1" sh < "$SETUP"`,
	}
	for _, dir := range []string{"doc", "man", "locale"} { // as the slim images do
		args = append(args, "--dpkgopt=path-exclude=/usr/share/"+dir+"/*")
	}
	cmd := exec.CommandContext(ctx, "mmdebstrap", append(args, suite, path, "-")...)
	cmd.Env = append(os.Environ(), "SETUP="+script)
	cmd.Stdin = strings.NewReader(sources)
	_, err = run(ctx, cmd)
	return err
}
