// Package node is the machine that the test cluster runs on: a process that
// holds a set of Linux namespaces (mount, PID, network, IPC, UTS), in which
// every part of the cluster is started.
//
// Because all that the cluster makes (processes, mounts, interfaces, firewall
// rules) lives in these namespaces, killing the holder removes all of it, no
// matter what state a crash left it in, and two clusters cannot meet. What is
// outside of them is one veth pair and one cgroup per hierarchy.
//
// The package never knows what runs on the node.
package node

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/agentpane/sandboxctl/testdata/cluster/process"
)

// namespaces that the node has for itself; the names are those in /proc/PID/ns.
var namespaces = []struct {
	name string
	flag int
}{
	{"ipc", unix.CLONE_NEWIPC},
	{"uts", unix.CLONE_NEWUTS},
	{"net", unix.CLONE_NEWNET},
	{"pid", unix.CLONE_NEWPID},
	{"mnt", unix.CLONE_NEWNS}, // last: after it, /proc is the node's own
}

// private holds the folders of the machine that the node has its own version
// of, so that programs with fixed paths (/run/containerd, /var/lib/kubelet,
// /var/log/pods) leave nothing on the machine.
var private = []string{"/run", "/var/lib", "/var/log"}

// InitArgument, as the first argument of this program, makes it the holder:
// main must call Init then.
const InitArgument = "node-init"

// Node is a node by its name and folder; whether it is up is asked of the
// kernel each time. The zero value is not usable.
type Node struct {
	// Name makes the node's interface and cgroup unique on the machine.
	Name string
	// Dir holds everything that the node writes; CheckPaths has its limits.
	Dir string
	// Network is the /30 between the machine (first address) and the node
	// (second address).
	Network netip.Prefix
}

// Address is the node's own address, reachable from the machine.
func (n Node) Address() netip.Addr { return n.hostAddress().Next() }

func (n Node) hostAddress() netip.Addr { return n.Network.Masked().Addr().Next() }

// Interface is the machine's end of the link to the node.
func (n Node) Interface() string { return "sbx-" + n.Name }

// Cgroup is the node's cgroup, relative to the root of each hierarchy.
func (n Node) Cgroup() string { return "/sandboxctl-" + n.Name }

func (n Node) holder() process.File { return process.File(filepath.Join(n.Dir, "node.pid")) }

// Up tells whether the node's namespaces are held.
func (n Node) Up() bool { return n.holder().Alive() }

// Create makes the namespaces and the link to them, with the program init (a
// static binary that reaps its children) as their first process. It fails if
// the node is up.
func (n Node) Create(init string) error {
	if n.Up() {
		return fmt.Errorf("node %s is up already", n.Name)
	}
	for _, dir := range private {
		if err := os.MkdirAll(n.privateDir(dir), 0o755); err != nil {
			return err
		}
	}
	if err := n.createCgroup(); err != nil {
		return err
	}
	pid, err := n.startHolder(init)
	if err != nil {
		return fmt.Errorf("creating the node's namespaces: %w", err)
	}
	if err := n.link(pid); err != nil {
		return errors.Join(fmt.Errorf("linking the node to the machine: %w", err), n.Destroy())
	}
	return nil
}

func (n Node) privateDir(dir string) string {
	return filepath.Join(n.Dir, "node", strings.ReplaceAll(dir[1:], "/", "-"))
}

// startHolder runs this program again in new namespaces, where Init prepares
// them and becomes init. The pipe reports an error, or closes with the exec.
func (n Node) startHolder(init string) (int, error) {
	report, reportEnd, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer report.Close()
	cmd := exec.Command("/proc/self/exe", InitArgument, init)
	for _, dir := range private {
		cmd.Args = append(cmd.Args, n.privateDir(dir)+":"+dir)
	}
	cmd.Dir = "/"
	cmd.Env = os.Environ()
	cmd.ExtraFiles = []*os.File{reportEnd}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	for _, ns := range namespaces {
		cmd.SysProcAttr.Cloneflags |= uintptr(ns.flag)
	}
	err = cmd.Start()
	reportEnd.Close()
	if err != nil {
		return 0, err
	}
	problem, err := io.ReadAll(report)
	if err == nil && len(problem) > 0 {
		err = errors.New(string(problem))
	}
	if err == nil {
		err = n.holder().Write(cmd.Process.Pid)
	}
	if err != nil {
		return 0, errors.Join(err, cmd.Process.Kill(), ignoreState(cmd.Process.Wait()))
	}
	pid := cmd.Process.Pid // Release forgets it
	return pid, cmd.Process.Release()
}

func ignoreState(_ *os.ProcessState, err error) error { return err }

// Init is the holder's side of Create: args are init and the binds
// "source:target". It does not return.
func Init(args []string) {
	err := prepare(args[1:])
	if err == nil {
		unix.CloseOnExec(3)
		err = unix.Exec(args[0], args[:1], os.Environ())
	}
	fmt.Fprint(os.NewFile(3, "report"), err)
	os.Exit(1)
}

func prepare(binds []string) error {
	// Slave: what the machine unmounts later is unmounted here too, and
	// nothing of the node is ever mounted on the machine.
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	for _, bind := range binds {
		source, target, _ := strings.Cut(bind, ":")
		if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", target, err)
		}
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	return unix.Sethostname([]byte("node"))
}

// CheckPaths tells whether the node would see the folders, which must not be
// among those that it has its own version of.
func (n Node) CheckPaths(dirs ...string) error {
	for _, dir := range dirs {
		for _, hidden := range private {
			if dir == hidden || strings.HasPrefix(dir, hidden+"/") {
				return fmt.Errorf("%s: the node has a %s of its own and would not see it: choose another folder", dir, hidden)
			}
		}
	}
	return nil
}

// Start starts cmd on the node; cmd must not have been started, and is waited
// for as usual.
func (n Node) Start(cmd *exec.Cmd) error {
	pid, ok := n.holder().Pid()
	if !ok {
		return fmt.Errorf("node %s is not up", n.Name)
	}
	result := make(chan error)
	go func() {
		// Never unlocked: a thread that has joined the namespaces must end
		// with this goroutine and never run another.
		runtime.LockOSThread()
		err := join(pid)
		if err == nil {
			err = cmd.Start()
		}
		result <- err
	}()
	return <-result
}

// Run runs cmd on the node and waits for it.
func (n Node) Run(cmd *exec.Cmd) error {
	if err := n.Start(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

// Shell runs each command (split at white space, no quoting) on the node; the
// first that fails ends it with what that command printed.
func (n Node) Shell(commands ...string) error {
	for _, command := range commands {
		if err := run(n.Run, command); err != nil {
			return err
		}
	}
	return nil
}

func join(pid int) error {
	// A thread shares its working directory with its process, which setns
	// into a mount namespace forbids.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("leaving the shared file system state: %w", err)
	}
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for _, ns := range namespaces {
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, ns.name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("opening the node's %s namespace: %w", ns.name, err)
		}
		fds = append(fds, fd)
	}
	for i, ns := range namespaces {
		if err := unix.Setns(fds[i], ns.flag); err != nil {
			return fmt.Errorf("entering the node's %s namespace: %w", ns.name, err)
		}
	}
	return nil
}

// Destroy ends every process on the node and removes what the node has on the
// machine. It may be called in any state, again and again.
func (n Node) Destroy() error {
	return errors.Join(n.holder().Kill(), n.unlink(), n.removeCgroup())
}
