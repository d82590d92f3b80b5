package build

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// program is a Go program out of a module that pins it: a folder beside this
// file with a go.mod of its own, or "" for this module.
type program struct {
	name, module, pkg string
	// upstream, if set, is the module whose version the program is to report,
	// as Kubernetes' own build does.
	upstream string
}

var programs = []program{
	{name: "pause", pkg: "./cmd/pause"},
	{name: "internet", pkg: "./cmd/internet"},
	kubernetes("kube-apiserver"),
	kubernetes("kubelet"),
	kubernetes("kube-controller-manager"),
	kubernetes("kube-scheduler"),
	kubernetes("kube-proxy"),
	kubernetes("kubectl"),
	{name: "kube-network-policies", module: "kubernetes", pkg: "sigs.k8s.io/kube-network-policies/cmd/kube-network-policies/standard"},
	{name: "coredns", module: "kubernetes", pkg: "./coredns"},
	{name: "metrics-server", module: "kubernetes", pkg: "sigs.k8s.io/metrics-server/cmd/metrics-server"},
	{name: "local-path-provisioner", module: "local-path-provisioner", pkg: "github.com/rancher/local-path-provisioner"},
}

func kubernetes(name string) program {
	return program{name: name, module: "kubernetes", pkg: "k8s.io/kubernetes/cmd/" + name, upstream: "k8s.io/kubernetes"}
}

// program builds p, if need be, and returns its path.
func (b Builder) program(ctx context.Context, p program) (string, error) {
	dir := b.Source
	if p.module != "" {
		dir = filepath.Join(dir, "build", p.module)
	}
	sources := []string{filepath.Join(dir, "go.mod"), filepath.Join(dir, "go.sum")}
	if strings.HasPrefix(p.pkg, "./") {
		sources = append(sources, filepath.Join(dir, p.pkg))
	}
	if p.module == "" {
		sources = append(sources, filepath.Join(dir, "internet"))
	}
	inputs, err := contents(sources...)
	if err != nil {
		return "", err
	}
	toolchain, err := goCommand(ctx, dir, "env", "GOVERSION", "GOARCH")
	if err != nil {
		return "", err
	}
	flags, err := linkerFlags(dir, p.upstream)
	if err != nil {
		return "", err
	}
	return b.cached(p.name, append(inputs, toolchain, flags), func(path string) error {
		_, err := goCommand(ctx, dir, "build", "-ldflags", flags, "-o", path, p.pkg)
		return err
	})
}

// goCommand runs the go command in the folder of a module, so that static programs
// come out the same wherever that is, and returns what it has printed.
func goCommand(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"-C", dir}, args...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly -buildvcs=false -trimpath", "GOWORK=off")
	return run(ctx, cmd)
}

// strip drops the symbols, a third of the size.
const strip = "-s -w"

// linkerFlags strip the program, and set the version that Kubernetes' components
// report (k8s.io/component-base/version).
func linkerFlags(dir, upstream string) (string, error) {
	if upstream == "" {
		return strip, nil
	}
	mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return "", err
	}
	version := regexp.MustCompile(`(?m)` + regexp.QuoteMeta(upstream) + ` (v(\d+)\.(\d+)\.\S+)`).FindSubmatch(mod)
	if version == nil {
		return "", fmt.Errorf("%s/go.mod does not require %s", dir, upstream)
	}
	const pkg = "k8s.io/component-base/version"
	return fmt.Sprintf("%s -X %s.gitVersion=%s -X %s.gitMajor=%s -X %s.gitMinor=%s",
		strip, pkg, version[1], pkg, version[2], pkg, version[3]), nil
}
