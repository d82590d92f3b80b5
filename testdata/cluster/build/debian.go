package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// CNIPlugins is where Debian keeps the CNI plugins.
const CNIPlugins = "/usr/lib/cni"

// needed are the programs that are not Go modules, by a file that tells
// whether they are there, and the Debian package that has them.
var needed = []struct{ file, pkg string }{
	{"etcd", "etcd-server"},
	{"containerd", "containerd"},
	{"runc", "runc"},
	{filepath.Join(CNIPlugins, "bridge"), "containernetworking-plugins"},
	{"iptables", "iptables"},
	{"nft", "nftables"},
	{"ip", "iproute2"},
	{"mmdebstrap", "mmdebstrap"},
}

// installPackages installs the Debian packages that are missing.
func (b Builder) installPackages(ctx context.Context) error {
	var missing []string
	for _, need := range needed {
		if _, err := exec.LookPath(need.file); err != nil {
			missing = append(missing, need.pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	what := strings.Join(missing, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("the cluster needs what Debian has as %s: install it, this machine has no apt-get", what)
	}
	done := b.Step("Debian packages " + what)
	err := b.apt(ctx, "update")
	if err == nil {
		err = b.apt(ctx, append([]string{"install", "--yes", "--no-install-recommends"}, missing...)...)
	}
	done(err)
	return err
}

func (b Builder) apt(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	// RUNLEVEL=1: the cluster runs these programs itself, the machine must not
	// start them as services (invoke-rc.d(8)).
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1")
	_, err := run(ctx, cmd)
	return err
}

// aptSources are the distribution's own package sources, as this machine is
// set up to reach them, in the one-line format of sources.list(5); origin is
// "Debian" or a derivative's name. The suite is the distribution's release.
func aptSources(ctx context.Context) (sources, suite string, err error) {
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", "", err
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(release)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		fields[key] = strings.Trim(value, `"`)
	}
	suite = fields["VERSION_CODENAME"]
	origin, _, _ := strings.Cut(fields["NAME"], " ")
	sources, err = run(ctx, exec.CommandContext(ctx, "apt-get", "indextargets",
		"--format", "deb $(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages", "Origin: "+origin))
	if err == nil && (sources == "" || suite == "") {
		err = errors.New("this machine's apt knows no package sources of its own distribution: run apt-get update")
	}
	return sources, suite, err
}
