package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/agentpane/sandboxctl/testdata/cluster/build"
	"github.com/agentpane/sandboxctl/testdata/cluster/node"
	"github.com/agentpane/sandboxctl/testdata/cluster/process"
)

const (
	// stopGrace is for a part to end by itself; the API server would linger
	// for a minute while somebody watches.
	stopGrace = 5 * time.Second
	// marker is the file that tells the cluster's folder from any other, so
	// that no other is ever emptied. It holds what the cluster was made from
	// once it has been up.
	marker = "sandboxctl-test-cluster"
)

// cluster is a cluster by its folder; whether it runs is asked of the kernel.
type cluster struct {
	dir      string
	node     node.Node
	builder  build.Builder
	progress progress
}

func (c *cluster) path(elements ...string) string {
	return filepath.Join(append([]string{c.dir}, elements...)...)
}

func (c *cluster) server() string { return "https://" + c.node.Address().String() + ":" + apiPort }

func (c *cluster) kubeconfig() string { return c.path("pki", "admin.kubeconfig") }

func (c *cluster) pidFile(part string) process.File { return process.File(c.path("run", part+".pid")) }

func (c *cluster) logFile(part string) string { return c.path("logs", part+".log") }

// up brings the cluster up from whatever state it is in, and waits until it
// runs pods. A cluster that is up already is left as it is.
func (c *cluster) up(ctx context.Context) error {
	if !c.node.Up() {
		if err := c.node.CheckNetwork(); err != nil {
			return err
		}
	}
	built, err := c.builder.Build(ctx)
	if err != nil {
		return err
	}
	made, err := c.fingerprint(built)
	if err != nil {
		return err
	}
	before, err := os.ReadFile(c.path(marker))
	if err == nil && string(before) == made && c.node.Up() {
		err = c.startAll(ctx, nil)
	} else {
		err = c.create(ctx, built)
	}
	if err != nil {
		return err
	}
	if err := c.importProduct(ctx, built.Product); err != nil {
		return err
	}
	return os.WriteFile(c.path(marker), []byte(made), 0o644)
}

// importProduct imports the image of the project's own program, unless that is
// there already.
func (c *cluster) importProduct(ctx context.Context, archive string) error {
	imported := c.path("product")
	if before, err := os.ReadFile(imported); err == nil && string(before) == archive {
		return nil
	}
	if err := c.importImages(ctx, []string{archive}); err != nil {
		return err
	}
	return os.WriteFile(imported, []byte(archive), 0o644)
}

// create makes the cluster anew.
func (c *cluster) create(ctx context.Context, built build.Result) error {
	if err := c.down(); err != nil {
		return err
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(c.path(marker), nil, 0o644); err != nil {
		return err
	}
	if err := c.write(built); err != nil {
		return err
	}
	if err := c.node.Create(c.path("bin", "pause")); err != nil {
		return err
	}
	if err := c.node.Shell(network()...); err != nil {
		return fmt.Errorf("setting up the node's network: %w", err)
	}
	return c.startAll(ctx, built.Images)
}

// fingerprint is a hash of all that decides what the cluster is: one that was
// made from something else is not up to date.
func (c *cluster) fingerprint(built build.Result) (string, error) {
	hash := sha256.New()
	built.Product = "" // see importProduct
	fmt.Fprintln(hash, c.node, built, network(), c.parts())
	names, err := templates()
	if err != nil {
		return "", err
	}
	for _, name := range names {
		content, err := files.ReadFile(name)
		if err != nil {
			return "", err
		}
		hash.Write(content)
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// startAll starts the parts that do not run, lets paused ones go on, and waits
// until the cluster runs pods; where all run, it does nothing. The archives are
// images to import before any pod can ask for them.
func (c *cluster) startAll(ctx context.Context, archives []string) error {
	broken := false
	for _, s := range c.states() {
		broken = broken || s.state != running
		if s.state == dead { // which is no news, unless it dies again
			if err := c.pidFile(s.part).Forget(); err != nil {
				return err
			}
		}
	}
	if !broken {
		return nil
	}
	if err := c.startEach(c.base()); err != nil {
		return err
	}
	// What takes longest, the import of images and the start of the controller
	// manager, happens at the same time.
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.importImages(groupCtx, archives) })
	group.Go(func() error {
		if err := c.applyObjects(groupCtx); err != nil {
			return err
		}
		return c.startEach(c.agents())
	})
	if err := group.Wait(); err != nil {
		return err
	}
	if err := c.start(c.kubelet()); err != nil {
		return err
	}
	return c.ready(ctx)
}

// startEach starts the parts that do not run.
func (c *cluster) startEach(parts []part) error {
	for _, part := range parts {
		if err := c.start(part); err != nil {
			return err
		}
	}
	return nil
}

// start starts a part, unless it runs. The part outlives this program and
// holds nothing of it: its output goes to its log.
func (c *cluster) start(p part) error {
	if c.pidFile(p.name).Paused() {
		return c.pidFile(p.name).Signal(syscall.SIGCONT)
	}
	if c.pidFile(p.name).Alive() {
		return nil
	}
	if err := c.node.Shell(p.before...); err != nil {
		return fmt.Errorf("preparing %s: %w", p.name, err)
	}
	log, err := os.OpenFile(c.logFile(p.name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(p.args[0], p.args[1:]...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/root"}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.node.Start(cmd); err != nil {
		return fmt.Errorf("starting %s: %w", p.name, err)
	}
	if err := c.pidFile(p.name).Write(cmd.Process.Pid); err != nil {
		return c.died(p.name)
	}
	return cmd.Process.Release()
}

// named is the part of that name.
func (c *cluster) named(name string) (part, error) {
	var names []string
	for _, part := range c.parts() {
		if part.name == name {
			return part, nil
		}
		names = append(names, part.name)
	}
	return part{}, fmt.Errorf("there is no part %q: the parts are %s", name, strings.Join(names, ", "))
}

// down ends the cluster and removes all that it left on the machine, whatever
// state it is in. The cache stays.
func (c *cluster) down() error {
	entries, err := os.ReadDir(c.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	isMarker := func(entry os.DirEntry) bool { return entry.Name() == marker }
	if len(entries) > 0 && !slices.ContainsFunc(entries, isMarker) {
		return fmt.Errorf("%s is not a test cluster's folder, and not empty: choose another with --dir", c.dir)
	}
	if err := c.node.Destroy(); err != nil {
		return err
	}
	return os.RemoveAll(c.dir)
}

// The states of a part: a stopped one was ended by this program, or never
// started; a dead one ended by itself, or was killed.
const (
	running = "running"
	paused  = "paused"
	stopped = "stopped"
	dead    = "dead"
)

// state is how a part does.
type state struct {
	part, state string
	pid         int
}

// states tells how each part does.
func (c *cluster) states() []state {
	var states []state
	for _, part := range c.parts() {
		file := c.pidFile(part.name)
		s := state{part: part.name, state: running}
		var ok bool
		switch s.pid, ok = file.Pid(); {
		case ok && file.Paused():
			s.state = paused
		case !ok && file.Exists():
			s.state = dead
		case !ok:
			s.state = stopped
		}
		states = append(states, s)
	}
	return states
}

// died is the error for a part that ended by itself, with the end of its log.
func (c *cluster) died(name string) error {
	return fmt.Errorf("%s died; %s ends with:\n%s", name, c.logFile(name), tail(c.logFile(name)))
}

// tail is the last few lines of a file.
func tail(path string) string {
	const size, lines = 8 << 10, 20
	file, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > size {
		_, _ = file.Seek(-size, io.SeekEnd) // at worst, it reads from the start
	}
	content, err := io.ReadAll(file)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(content)), "\n")
	return "  " + strings.Join(all[max(0, len(all)-lines):], "\n  ")
}
