// Package connection finds the cluster to work on, and connects to it. Of five
// places, the first that has a kubeconfig wins: the path that was given, the
// variables K8S_KUBECONFIG and KUBECONFIG, ~/.kube/config, and the service
// account of the pod that this runs in. A place that is named but holds none is
// an error: the next one could be another cluster. A variable that is empty counts
// as not set, as kubectl has it. The package never guesses a
// cluster, never writes a kubeconfig, never goes without TLS verification
// unless told to, and never prints. What goes wrong is a [failure.Error].
package connection

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/agentpane/sandboxctl/reconcile/failure"
)

// Tier is one of the places where a kubeconfig is looked for.
type Tier string

// The tiers, in the order in which they are tried.
const (
	Given       Tier = "given" // by a flag or the fleet's file
	OwnVariable Tier = "K8S_KUBECONFIG"
	Variable    Tier = "KUBECONFIG"
	Home        Tier = "home"
	InCluster   Tier = "in-cluster"
)

// ServiceAccountFolder is where Kubernetes puts a pod's credentials.
const ServiceAccountFolder = "/var/run/secrets/kubernetes.io/serviceaccount"

// Finder finds kubeconfigs on a machine.
type Finder struct {
	// LookupEnv looks up a variable of the environment, as os.LookupEnv does.
	LookupEnv func(string) (string, bool)
	// Home is the user's home folder; it can be empty.
	Home string
	// ServiceAccount is the folder of a pod's token, ca.crt and namespace.
	ServiceAccount string
}

// Find returns the kubeconfig at path, or, when path is empty, the one that the
// other tiers lead to. Its errors are KubeconfigNotFound and KubeconfigInvalid.
func (f Finder) Find(path string) (*Kubeconfig, error) {
	if path != "" {
		return f.load(Given, path)
	}
	if path := f.variable(string(OwnVariable)); path != "" {
		return f.load(OwnVariable, path)
	}
	if paths := nonEmpty(filepath.SplitList(f.variable(string(Variable)))); len(paths) > 0 {
		return f.load(Variable, paths...)
	}
	home := filepath.Join(f.Home, ".kube", "config")
	if f.Home != "" && exists(home) {
		return f.load(Home, home)
	}
	return f.inCluster()
}

// load reads files and merges them as kubectl does. Of several, those that do
// not exist are left out.
func (f Finder) load(tier Tier, paths ...string) (*Kubeconfig, error) {
	var found []string
	for i, path := range paths {
		paths[i] = f.expand(path)
		if exists(paths[i]) {
			found = append(found, paths[i])
		}
	}
	if len(found) == 0 {
		path := strings.Join(paths, string(filepath.ListSeparator))
		return nil, failure.New(failure.KubeconfigNotFound, failure.Object{}, "there is no kubeconfig %s, which %s", path, tier.named()).
			WithHint("Correct that path, or remove it to have the cluster discovered.").With("path", path)
	}
	for _, path := range found { // one by one, for errors that name the file
		if err := check(path); err != nil {
			return nil, err
		}
	}
	path := strings.Join(found, string(filepath.ListSeparator))
	rules := clientcmd.ClientConfigLoadingRules{Precedence: found}
	config, err := rules.Load()
	if err != nil {
		return nil, invalid(path, "it cannot be merged").Because(err)
	}
	return &Kubeconfig{Tier: tier, Path: path, config: config}, nil
}

// named says who named a kubeconfig.
func (t Tier) named() string {
	if t == Given {
		return "was asked for"
	}
	return string(t) + " names"
}

// yamlError is what the YAML parser says, as far as it does not quote the file.
var yamlError = regexp.MustCompile(`(line \d+): ((?:'.'|[^'"\x60])+)`)

// check reads one file. What is wrong with it is told without its content,
// which is credentials for the most part.
func check(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		var cause *fs.PathError
		if errors.As(err, &cause) {
			err = cause.Err
		}
		return invalid(path, "it cannot be read: "+err.Error()).Because(err)
	}
	if _, err := clientcmd.Load(content); err != nil {
		if m := yamlError.FindStringSubmatch(err.Error()); m != nil {
			return invalid(path+", "+m[1], "it is not valid YAML: "+m[2]).Because(err)
		}
		return invalid(path, "it does not have a kubeconfig's form").
			WithHint("Compare with what kubectl config view --kubeconfig %s says.", path).Because(err)
	}
	return nil
}

func invalid(path, why string) *failure.Error {
	return failure.New(failure.KubeconfigInvalid, failure.Object{}, "kubeconfig %s: %s", path, why).With("path", path)
}

// inCluster is the kubeconfig that a pod's service account amounts to.
func (f Finder) inCluster() (*Kubeconfig, error) {
	host, port := f.variable("KUBERNETES_SERVICE_HOST"), f.variable("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return nil, failure.New(failure.KubeconfigNotFound, failure.Object{}, "there is no kubeconfig: none was given, K8S_KUBECONFIG and KUBECONFIG are not set, and there is no ~/.kube/config").
			WithHint("Name one with --kubeconfig, or make a local cluster: sandboxctl cluster up")
	}
	token, authority := filepath.Join(f.ServiceAccount, "token"), filepath.Join(f.ServiceAccount, "ca.crt")
	for _, path := range []string{token, authority} {
		if !exists(path) {
			return nil, failure.New(failure.KubeconfigNotFound, failure.Object{}, "there is no kubeconfig, and this pod has no %s", path).
				WithHint("Mount the service account's token (automountServiceAccountToken), or name a kubeconfig.").With("path", path)
		}
	}
	namespace, err := os.ReadFile(filepath.Join(f.ServiceAccount, "namespace"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, invalid(f.ServiceAccount, "its namespace cannot be read").Because(err)
	}
	config := clientcmdapi.NewConfig()
	name := string(InCluster)
	config.Clusters[name] = &clientcmdapi.Cluster{Server: "https://" + net.JoinHostPort(host, port), CertificateAuthority: authority}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{TokenFile: token}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name, Namespace: strings.TrimSpace(string(namespace))}
	config.CurrentContext = name
	return &Kubeconfig{Tier: InCluster, Path: f.ServiceAccount, config: config}, nil
}

func (f Finder) variable(name string) string {
	value, _ := f.LookupEnv(name)
	return value
}

// expand replaces the "~" at the beginning of a path, as a shell does.
func (f Finder) expand(path string) string {
	if rest, ok := strings.CutPrefix(path, "~"); ok && f.Home != "" && (rest == "" || os.IsPathSeparator(rest[0])) {
		return filepath.Join(f.Home, rest)
	}
	return path
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

func nonEmpty(paths []string) []string {
	var rest []string
	for _, path := range paths {
		if path != "" {
			rest = append(rest, path)
		}
	}
	return rest
}
