// Command cluster brings up and down a real one-node Kubernetes on this
// machine, for tests and demos: see README.md in this folder.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agentpane/sandboxctl/testdata/cluster/build"
	"github.com/agentpane/sandboxctl/testdata/cluster/node"
)

const usage = `usage: cluster [flags] COMMAND

  up            build what is missing, start what does not run, wait until pods run
  down          end everything and remove what it left on the machine (not the cache)
  status        which parts run, and where their logs are
  env           print the variables that tests and kubectl need
  start PART    start one part
  stop PART     end one part, by SIGTERM and then SIGKILL
  kill PART     end one part by SIGKILL
  pause PART    freeze one part (SIGSTOP)
  resume PART   let it go on
  restart PART  stop and start one part
  exec COMMAND  run a command on the node (as "exec ctr -n k8s.io images ls")

flags:
`

func main() {
	if len(os.Args) > 2 && os.Args[1] == node.InitArgument {
		node.Init(os.Args[2:])
	}
	// What the caller left open (a pipe, a terminal) must not be held open by
	// the parts, which outlive this program.
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	c, args, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		return errors.New("the test cluster needs Linux and root; elsewhere, name a cluster with SANDBOXCTL_TEST_KUBECONFIG")
	}
	command, args := args[0], args[1:]
	switch command {
	case "status":
		return c.printStatus(stdout)
	case "env":
		return c.printEnvironment(stdout)
	case "exec":
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, stdout, stderr
		return c.node.Run(cmd)
	}
	// What changes the cluster or the cache happens one at a time.
	unlock, err := lock(c.builder.Cache, stderr)
	if err != nil {
		return err
	}
	defer unlock()
	switch command {
	case "up":
		if err := c.up(ctx); err != nil {
			return err
		}
		_, err := fmt.Fprintf(stdout, "export KUBECONFIG=%s\n", c.kubeconfig())
		return err
	case "down":
		return c.down()
	}
	return c.control(command, args[0])
}

// parse reads the command line: the cluster that it means, and the command
// with its arguments.
func parse(args []string, stderr io.Writer) (*cluster, []string, error) {
	flags := flag.NewFlagSet("cluster", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	name := flags.String("name", "test", "name of the cluster, 1 to 11 letters and digits")
	dir := flags.String("dir", "", "folder of the cluster (default sandboxctl-cluster/NAME in the user's state folder)")
	cache := flags.String("cache", "", "folder of what is built (default sandboxctl-cluster in the user's cache folder)")
	network := flags.String("network", "10.213.0.0/30", "the `network` between machine and node; one per cluster")
	source := flags.String("source", ".", "folder of this program's source")
	reference := flags.String("sandbox-image", "docker.io/agentpane/agent-sandbox:dev", "what to call the sandbox image")
	if err := flags.Parse(args); err != nil {
		return nil, nil, err
	}
	args = flags.Args()
	if err := checkCommand(args); err != nil {
		return nil, nil, fmt.Errorf("%w; cluster -h tells more", err)
	}
	if !regexp.MustCompile(`^[a-z0-9]{1,11}$`).MatchString(*name) {
		return nil, nil, fmt.Errorf("--name %q: want 1 to 11 letters and digits, as it is a part of an interface's name", *name)
	}
	prefix, err := netip.ParsePrefix(*network)
	if err != nil || !prefix.Addr().Is4() || prefix.Bits() != 30 || prefix.Masked() != prefix {
		return nil, nil, fmt.Errorf("--network %q: want an IPv4 network of four addresses, as 10.213.0.0/30", *network)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, nil, err
	}
	if *dir == "" {
		*dir = filepath.Join(cmp.Or(os.Getenv("XDG_STATE_HOME"), filepath.Join(home, ".local/state")), "sandboxctl-cluster", *name)
	}
	if *cache == "" {
		*cache = filepath.Join(cmp.Or(os.Getenv("XDG_CACHE_HOME"), filepath.Join(home, ".cache")), "sandboxctl-cluster")
	}
	for _, path := range []*string{dir, cache, source} {
		if *path, err = filepath.Abs(*path); err != nil {
			return nil, nil, err
		}
	}
	c := &cluster{
		dir:      *dir,
		node:     node.Node{Name: *name, Dir: *dir, Network: prefix},
		progress: progress{out: stderr, now: time.Now},
	}
	c.builder = build.Builder{
		Cache: *cache, Source: *source,
		SandboxImage: filepath.Join(*source, "../../examples/image"), SandboxReference: *reference,
		Project: filepath.Join(*source, "../.."), ProductReference: "docker.io/agentpane/sandboxctl:dev",
		Step: c.progress.step,
	}
	return c, args, c.node.CheckPaths(*dir, *cache)
}

// checkCommand checks the command and the number of its arguments.
func checkCommand(args []string) error {
	if len(args) == 0 {
		return errors.New("a command is missing")
	}
	switch command, n := args[0], len(args)-1; command {
	case "up", "down", "status", "env":
		if n > 0 {
			return fmt.Errorf("%s takes no arguments", command)
		}
	case "start", "stop", "kill", "pause", "resume", "restart":
		if n != 1 {
			return fmt.Errorf("%s takes the name of one part", command)
		}
	case "exec":
		if n == 0 {
			return errors.New("exec takes a command")
		}
	default:
		return fmt.Errorf("there is no command %q", command)
	}
	return nil
}

// control does one thing to one part.
func (c *cluster) control(command, name string) error {
	part, err := c.named(name)
	if err != nil {
		return err
	}
	if !c.node.Up() {
		return errors.New("the cluster is not up")
	}
	file := c.pidFile(name)
	switch command {
	case "start":
		return c.start(part)
	case "stop":
		return file.Stop(stopGrace)
	case "kill":
		return file.Kill()
	case "pause":
		return file.Signal(syscall.SIGSTOP)
	case "resume":
		return file.Signal(syscall.SIGCONT)
	default: // restart
		return errors.Join(file.Stop(stopGrace), c.start(part))
	}
}

// printStatus prints the state of each part; that one does not run is an
// error.
func (c *cluster) printStatus(out io.Writer) error {
	if !c.node.Up() {
		return fmt.Errorf("cluster %s is not up", c.node.Name)
	}
	var broken []string
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "PART\tSTATE\tPID\tLOG")
	for _, s := range c.states() {
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\n", s.part, s.state, s.pid, c.logFile(s.part))
		if s.state != running {
			broken = append(broken, s.part)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if len(broken) > 0 {
		return fmt.Errorf("not running: %s", strings.Join(broken, ", "))
	}
	return nil
}

// printEnvironment prints, for a shell to evaluate, what tests and kubectl
// need to know.
func (c *cluster) printEnvironment(out io.Writer) error {
	if !c.node.Up() {
		return fmt.Errorf("cluster %s is not up", c.node.Name)
	}
	_, err := fmt.Fprintf(out, "export KUBECONFIG=%s\nexport SANDBOXCTL_TEST_KUBECONFIG=%[1]s\nexport SANDBOXCTL_TEST_INTERNET=%s\nexport PATH=%s:$PATH\n",
		c.kubeconfig(), c.path("internet.json"), c.path("bin"))
	return err
}

// lock waits until no other command changes anything in the cache or in a
// cluster that uses it.
func lock(cache string, stderr io.Writer) (unlock func(), err error) {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	dir, err := os.Open(cache)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		fmt.Fprintln(stderr, "  … waiting for another cluster command to end")
		err = unix.Flock(int(dir.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		dir.Close()
		return nil, fmt.Errorf("locking %s: %w", cache, err)
	}
	return func() { dir.Close() }, nil
}
