package main

import (
	"embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path"
	"strings"
	"text/template"

	"github.com/agentpane/sandboxctl/testdata/cluster/build"
	"github.com/agentpane/sandboxctl/testdata/cluster/internet"
	"github.com/agentpane/sandboxctl/testdata/cluster/pki"
)

// files are the configuration of the parts and the objects of the cluster, as
// templates.
//
//go:embed config manifests
var files embed.FS

// settings fill the templates.
type settings struct {
	PKI, Config, Cgroup, NodeName        string
	PodNetwork, DNSAddress, Resolver     string
	CNIPlugins, PauseImage, CoreDNSImage string
	SandboxImage, Volumes                string
	NodeAddress, MetricsPort, CABundle   string
}

// write writes everything that the parts are and read: links to programs,
// certificates, kubeconfigs, configuration.
func (c *cluster) write(built build.Result) error {
	for _, dir := range []string{"bin", "pki/front-proxy", "config/cni", "manifests", "logs", "run"} {
		if err := os.MkdirAll(c.path(dir), 0o755); err != nil {
			return err
		}
	}
	for name, program := range built.Programs {
		if err := os.Symlink(program, c.path("bin", name)); err != nil {
			return err
		}
	}
	if err := c.writeKeys(); err != nil {
		return fmt.Errorf("making certificates: %w", err)
	}
	if err := c.writeConfig(); err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	return c.writeInternet()
}

func (c *cluster) writeKeys() error {
	authority, err := pki.NewAuthority(c.path("pki"), "sandboxctl test cluster "+c.node.Name)
	if err != nil {
		return err
	}
	servers, clients := subjects(c.node)
	for name, subject := range servers {
		if err := authority.Issue(name, subject); err != nil {
			return err
		}
	}
	for name, subject := range clients {
		if _, err := authority.Kubeconfig(name, c.server(), subject); err != nil {
			return err
		}
	}
	proxies, err := pki.NewAuthority(c.path("pki/front-proxy"), "sandboxctl test cluster "+c.node.Name+" front proxy")
	if err != nil {
		return err
	}
	return proxies.Issue("client", pki.Subject{CommonName: frontProxy})
}

func (c *cluster) writeConfig() error {
	authority, err := os.ReadFile(c.path("pki/ca.crt"))
	if err != nil {
		return err
	}
	values := settings{
		PKI: c.path("pki"), Config: c.path("config"), Cgroup: c.node.Cgroup(), NodeName: nodeName,
		PodNetwork: podNetwork, DNSAddress: dnsAddress, Resolver: internet.Resolver,
		CNIPlugins: build.CNIPlugins, PauseImage: build.PauseImage, CoreDNSImage: build.CoreDNSImage,
		SandboxImage: c.builder.SandboxReference, Volumes: volumes,
		NodeAddress: c.node.Address().String(), MetricsPort: metricsPort,
		CABundle: base64.StdEncoding.EncodeToString(authority),
	}
	names, err := templates()
	if err != nil {
		return err
	}
	for _, name := range names {
		content, err := fill(name, values)
		if err != nil {
			return err
		}
		target := c.path(name)
		if path.Ext(name) == ".conflist" { // containerd wants a folder with nothing else in it
			target = c.path("config/cni", path.Base(name))
		}
		if err := os.WriteFile(target, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func templates() ([]string, error) { return fs.Glob(files, "*/*") }

func fill(name string, values settings) (string, error) {
	parsed, err := template.ParseFS(files, name)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	err = parsed.Execute(&out, values)
	return out.String(), err
}

// writeInternet says to tests where the hosts of the test internet are.
func (c *cluster) writeInternet() error {
	content, err := json.MarshalIndent(map[string]string{
		"allowed":  internet.Allowed,
		"denied":   internet.Denied,
		"metadata": internet.Metadata,
		"resolver": internet.Resolver,
		"private":  internet.Private,
		"ca":       c.path("pki", "ca.crt"),
	}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(c.path("internet.json"), content, 0o644)
}

func addresses(texts ...string) []netip.Addr {
	var parsed []netip.Addr
	for _, text := range texts {
		parsed = append(parsed, netip.MustParseAddr(text))
	}
	return parsed
}
