// Package build makes what the test cluster runs (programs and images) and
// keeps it in a cache outside of the tree, under names that hold a hash of
// everything it was made from: what is in the cache is whole and current, and
// a second run compiles nothing. It starts nothing.
package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Builder builds into a cache folder.
type Builder struct {
	// Cache is the folder that outlives the cluster.
	Cache string
	// Source is the folder of this module.
	Source string
	// SandboxImage is the folder with the content of the sandbox image
	// (packages.txt, setup.sh), SandboxReference what the image is called.
	SandboxImage, SandboxReference string
	// Project is the folder of the project, ProductReference what the image of
	// its program is called, which the egress gateway runs.
	Project, ProductReference string
	// Step announces what is about to be done; the function that it returns
	// is told when that is over.
	Step func(what string) (done func(error))
}

// Result says where the programs and images are.
type Result struct {
	// Programs holds the path of each program by its name.
	Programs map[string]string
	// Images are OCI archives to import.
	Images []string
	// Product is the OCI archive of the project's own program. It changes all
	// the time, and no cluster is made anew for it.
	Product string
}

// Build makes what is missing. A part that fails is named.
func (b Builder) Build(ctx context.Context) (Result, error) {
	result := Result{Programs: map[string]string{}}
	if err := os.MkdirAll(b.Cache, 0o755); err != nil {
		return result, err
	}
	if err := b.installPackages(ctx); err != nil {
		return result, err
	}
	for _, program := range programs {
		path, err := b.program(ctx, program)
		if err != nil {
			return result, fmt.Errorf("building %s: %w", program.name, err)
		}
		result.Programs[program.name] = path
	}
	images, err := b.images(ctx, result.Programs)
	if err != nil {
		return result, err
	}
	result.Images = images
	if result.Product, err = b.product(ctx); err != nil {
		return result, fmt.Errorf("building the project's own image: %w", err)
	}
	return result, nil
}

// cached returns the path of name in the cache, under a hash of inputs; where
// it is missing, make is called first to write it to a path beside, which
// becomes visible only when it is whole.
func (b Builder) cached(name string, inputs []string, make func(path string) error) (string, error) {
	path := filepath.Join(b.Cache, fmt.Sprintf("%s-%s", name, digest(inputs)))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	done := b.Step(name)
	unfinished := path + ".new"
	err := make(unfinished)
	if err == nil {
		err = os.Rename(unfinished, path)
	}
	done(err)
	return path, err
}

// digest is short enough for a file name and long enough not to collide.
func digest(inputs []string) string {
	hash := sha256.New()
	for _, input := range inputs {
		fmt.Fprintf(hash, "%d:%s", len(input), input)
	}
	return hex.EncodeToString(hash.Sum(nil))[:12]
}

// contents reads files for use as inputs, folders with all below them. Where
// the tree stands does not matter: the cache serves every checkout.
func contents(paths ...string) ([]string, error) {
	var inputs []string
	for _, root := range paths {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			content, err := os.ReadFile(path)
			inputs = append(inputs, filepath.Base(path), string(content))
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return inputs, nil
}

// run runs a command to its end and returns what it printed to standard
// output. The error holds the end of what it printed to standard error.
func run(ctx context.Context, cmd *exec.Cmd) (string, error) {
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, lastLines(stderr.String(), 20))
	}
	return stdout.String(), nil
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
