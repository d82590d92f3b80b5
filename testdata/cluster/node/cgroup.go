package node

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// createCgroup makes the node's cgroup in every hierarchy: the kubelet wants
// the root of its pods to exist, and two kubelets with the same root would
// remove each other's pods.
func (n Node) createCgroup() error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	for _, root := range roots {
		dir := root + n.Cgroup()
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("creating the node's cgroup: %w", err)
		}
		if err := inheritCpuset(dir); err != nil {
			return err
		}
		if err := delegateControllers(root); err != nil {
			return err
		}
	}
	return nil
}

// inheritCpuset gives a new cgroup v1 cpuset its parent's processors: without
// any, no process can join it.
func inheritCpuset(dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		parent, err := os.ReadFile(filepath.Join(filepath.Dir(dir), name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // not the cpuset hierarchy, or the root of version 2
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), parent, 0o644)
		}
		if err != nil {
			return fmt.Errorf("setting %s: %w", name, err)
		}
	}
	return nil
}

// delegateControllers lets the children of a version 2 root use every
// controller that the root has.
func delegateControllers(root string) error {
	controllers, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // version 1
	}
	if err != nil {
		return err
	}
	for _, controller := range strings.Fields(string(controllers)) {
		file := filepath.Join(root, "cgroup.subtree_control")
		if err := os.WriteFile(file, []byte("+"+controller), 0o644); err != nil {
			return fmt.Errorf("delegating the %s controller: %w", controller, err)
		}
	}
	return nil
}

// removeCgroup removes the node's cgroup with all below it. The processes are
// gone, but the kernel may still be about to notice.
func (n Node) removeCgroup() error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	deadline := time.Now().Add(unlinkTimeout)
	for _, root := range roots {
		err := removeTree(root + n.Cgroup())
		for errors.Is(err, unix.EBUSY) && time.Now().Before(deadline) {
			err = removeTree(root + n.Cgroup())
		}
		if err != nil {
			return fmt.Errorf("removing the node's cgroup: %w", err)
		}
	}
	return nil
}

// removeTree removes a cgroup and its children: only folders can be removed
// there, the deepest first.
func removeTree(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, dir := range slices.Backward(dirs) {
		if err := os.Remove(dir); err != nil {
			return err
		}
	}
	return nil
}

// hierarchies are the mount points of the machine's cgroup file systems.
func hierarchies() ([]string, error) {
	mounts, err := os.Open("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	defer mounts.Close()
	var roots []string
	scanner := bufio.NewScanner(mounts)
	for scanner.Scan() {
		fields := strings.Fields(scanner.Text())
		if fields[2] == "cgroup" || fields[2] == "cgroup2" {
			roots = append(roots, fields[1])
		}
	}
	return roots, scanner.Err()
}
