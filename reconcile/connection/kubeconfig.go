package connection

import (
	"cmp"
	"maps"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

// Kubeconfig is a kubeconfig that was found.
type Kubeconfig struct {
	Tier Tier
	// Path is the file, or the files that were merged, in KUBECONFIG's form.
	Path string

	config *clientcmdapi.Config
}

// Context is a context of a kubeconfig.
type Context struct {
	Name, Cluster, User string
	// Namespace is empty when the context does not name one.
	Namespace string
	// Server is the URL of the API server, without a password; empty when the
	// kubeconfig lacks the cluster.
	Server string
}

// Current returns the name of the current context, or "" when none is set.
func (k *Kubeconfig) Current() string { return k.config.CurrentContext }

// Contexts returns the contexts by name. It does not talk to any cluster.
func (k *Kubeconfig) Contexts() []Context {
	var contexts []Context
	for _, name := range slices.Sorted(maps.Keys(k.config.Contexts)) {
		context := k.config.Contexts[name]
		listed := Context{Name: name, Cluster: context.Cluster, User: context.AuthInfo, Namespace: context.Namespace}
		if cluster := k.config.Clusters[context.Cluster]; cluster != nil {
			listed.Server = withoutUser(cluster.Server)
		}
		contexts = append(contexts, listed)
	}
	return contexts
}

var userInfo = regexp.MustCompile(`^(\w+://)?[^/@]*@`)

// withoutUser takes user and password out of a server's URL.
func withoutUser(server string) string { return userInfo.ReplaceAllString(server, "$1") }

// choose returns the name of the context to use: the wanted one, or the current
// one.
func (k *Kubeconfig) choose(wanted string) (string, error) {
	name := cmp.Or(wanted, k.config.CurrentContext)
	known := slices.Sorted(maps.Keys(k.config.Contexts))
	choice := "It has: " + strings.Join(known, ", ")
	switch {
	case len(known) == 0:
		return "", invalid(k.Path, "it has no contexts")
	case name == "":
		return "", invalid(k.Path, "it sets no current context").WithHint("Name one with --context. %s", choice)
	case k.config.Contexts[name] != nil:
		return name, nil
	}
	which := "context"
	if wanted == "" {
		which = "current context"
	}
	return "", failure.New(failure.ContextNotFound, failure.Object{}, "kubeconfig %s does not have the %s %s", k.Path, which, diagnostic.Quote(name)).
		WithHint("%s %s", diagnostic.DidYouMean(name, known), choice).With("context", name)
}

// client returns the client configuration of a context, which must exist.
func (k *Kubeconfig) client(name string, allowInsecure bool) (*rest.Config, error) {
	if err := clientcmd.ConfirmUsable(*k.config, name); err != nil {
		return nil, k.unusable(name, err)
	}
	config, err := clientcmd.NewNonInteractiveClientConfig(*k.config, name, &clientcmd.ConfigOverrides{}, nil).ClientConfig()
	if err != nil {
		return nil, k.unusable(name, err)
	}
	server, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, k.unusable(name, err)
	}
	if why := unverified(k.config.Clusters[k.config.Contexts[name].Cluster], server); why != "" && !allowInsecure {
		return nil, failure.New(failure.InsecureConnection, failure.Object{}, "kubeconfig %s: its cluster %s %s",
			k.Path, diagnostic.Quote(k.config.Contexts[name].Cluster), why).
			WithHint("Put the cluster's CA into certificate-authority-data; or, where it cannot be helped, use --allow-insecure.")
	}
	return config, nil
}

// unverified says why a connection would not be verified, or nothing when it
// will be. Without TLS, as kubectl proxy serves, only this machine will do.
func unverified(cluster *clientcmdapi.Cluster, server *url.URL) string {
	if cluster.InsecureSkipTLSVerify {
		return "switches TLS verification off (insecure-skip-tls-verify)"
	}
	address, err := netip.ParseAddr(server.Hostname())
	local := server.Hostname() == "localhost" || err == nil && address.IsLoopback()
	if server.Scheme != "https" && !local {
		return "has a server without TLS, " + withoutUser(server.String())
	}
	return ""
}

// unusable is for a context that lacks something. The causes name entries and
// files, never their content.
func (k *Kubeconfig) unusable(name string, err error) error {
	why := err.Error()
	if all, ok := err.(utilerrors.Aggregate); ok {
		var causes []string
		for _, cause := range all.Errors() {
			causes = append(causes, cause.Error())
		}
		why = strings.Join(causes, "; ")
	}
	return invalid(k.Path, "context "+diagnostic.Quote(name)+" cannot be used: "+why).Because(err)
}
