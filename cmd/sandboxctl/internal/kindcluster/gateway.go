package kindcluster

import (
	"context"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"sigs.k8s.io/kind/pkg/cluster/nodes"

	"github.com/agentpane/sandboxctl/render"
)

// gatewayDockerfile is the last stage of examples/gateway-image/Dockerfile: what
// the first one builds is there already.
const gatewayDockerfile = "FROM scratch\nCOPY sandboxctl /sandboxctl\nUSER 1000:1000\nENTRYPOINT [\"/sandboxctl\"]\n"

// loadGateway loads the gateway's image as the engine has it; where that has
// none, it is made of the program itself, if that can run in an image that holds
// nothing else. Where it cannot, that is said and no failure: only allowlists
// with host names, and the test of whether allowlists hold, need it.
func (c *Clusters) loadGateway(ctx context.Context, all []nodes.Node, o Options) error {
	if o.Program == "" {
		return nil
	}
	name := render.GatewayImage() // which holds this very program
	id, err := c.imageID(ctx, name)
	if err != nil && isStatic(o.Program) {
		err = c.progress.step("Building the image "+name, func() error { return c.buildGateway(ctx, name, o.Program) })
		if err == nil {
			id, err = c.imageID(ctx, name)
		}
	}
	if err != nil {
		c.progress.Warnf("%s does not have the image %s, which tests and enforces allowlists: `make gateway-image` in a checkout of sandboxctl builds it. Then run this again.",
			c.engine.Name, name)
		return nil
	}
	_, err = c.load(ctx, all, name, id)
	return err
}

func (c *Clusters) buildGateway(ctx context.Context, name, program string) error {
	return inTempDir(func(dir string) error {
		if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(gatewayDockerfile), 0o644); err != nil {
			return err
		}
		if err := copyProgram(program, filepath.Join(dir, "sandboxctl")); err != nil {
			return fmt.Errorf("copying the program: %w", err)
		}
		_, err := c.engine.run(ctx, "build", "--tag", name, dir)
		return err
	})
}

// isStatic tells whether the program is one of Linux that needs no other file.
func isStatic(program string) bool {
	file, err := elf.Open(program)
	if err != nil {
		return false
	}
	defer file.Close()
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_INTERP {
			return false
		}
	}
	return true
}

func copyProgram(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	if closeErr := target.Close(); err == nil {
		err = closeErr
	}
	return err
}
