package connection

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/agentpane/sandboxctl/reconcile/failure"
)

// DefaultTimeout is how long a server has to begin its answer. It is longer
// than a server waits for the slowest admission webhook (30s).
const DefaultTimeout = 40 * time.Second

// Options are what there is to choose about a connection.
type Options struct {
	// Context is the kubeconfig's context; the current one when it is empty.
	Context string
	// AllowInsecure accepts a kubeconfig that goes without TLS verification.
	AllowInsecure bool
	// Timeout is how long the server has to begin its answer to any request;
	// DefaultTimeout when it is 0. It does not bound what follows, so watches
	// last as long as they are wanted.
	Timeout time.Duration
	// Version is this program's, for the server's logs.
	Version string
	// Now is the local clock.
	Now func() time.Time
}

// Cluster is a cluster that can be talked to.
type Cluster struct {
	// Config is for clients of other kinds. It has no rate limit, as servers
	// have their own, and drops the server's warnings: who wants to hear them
	// sets a handler.
	Config *rest.Config
	Client dynamic.Interface
	// Context and Name are what the kubeconfig calls context and cluster.
	Context, Name string
	// Server is the URL of the API server, without a password.
	Server string
	// Namespace is the context's, or "default".
	Namespace string
	// Kubeconfig says where all this was found.
	Kubeconfig *Kubeconfig

	raw   *rest.RESTClient
	clock *clock
}

// Connect returns the cluster of a context. It does not talk to it yet. Its
// errors are ContextNotFound, KubeconfigInvalid and InsecureConnection.
func (k *Kubeconfig) Connect(options Options) (*Cluster, error) {
	name, err := k.choose(options.Context)
	if err != nil {
		return nil, err
	}
	config, err := k.client(name, options.AllowInsecure)
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	config.UserAgent = "sandboxctl/" + options.Version
	config.WarningHandlerWithContext = rest.NoWarnings{}
	timeout := cmp.Or(options.Timeout, DefaultTimeout)
	clock := &clock{local: options.Now}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return &deadline{&listening{next, clock}, timeout} })
	entry := k.config.Contexts[name]
	cluster := &Cluster{
		Config: config, Context: name, Name: entry.Cluster, Server: withoutUser(config.Host),
		Namespace: cmp.Or(entry.Namespace, metav1.NamespaceDefault), Kubeconfig: k, clock: clock,
	}
	if cluster.Client, cluster.raw, err = NewClients(config); err != nil {
		return nil, k.unusable(name, err)
	}
	return cluster, nil
}

// ClockSkew is how much the local clock is ahead of the server's, to a second or
// two, as its latest answer has shown.
func (c *Cluster) ClockSkew() time.Duration { return c.clock.skew() }

// Identity returns the uid of the cluster's kube-system namespace, which no two
// clusters share, and which stays the same for the cluster's whole life.
func (c *Cluster) Identity(ctx context.Context) (types.UID, error) {
	system, err := c.namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return "", failure.From(err, failure.Object{Kind: "namespace", Name: metav1.NamespaceSystem})
	}
	return system.GetUID(), nil
}

// Version returns the server's version, as "v1.37.2".
func (c *Cluster) Version(ctx context.Context) (string, error) {
	body, err := c.raw.Get().AbsPath("/version").Do(ctx).Raw()
	var server version.Info
	if err == nil {
		err = json.Unmarshal(body, &server)
	}
	return server.GitVersion, failure.From(err, failure.Object{Kind: "version"})
}

// Namespaces returns the first namespaces by name, limit of them at most, and
// how many there are in all.
func (c *Cluster) Namespaces(ctx context.Context, limit int64) (first []corev1.Namespace, total int64, err error) {
	list, err := c.namespaces().List(ctx, metav1.ListOptions{Limit: limit})
	if err != nil {
		return nil, 0, failure.From(err, failure.Object{Kind: "namespaces"})
	}
	first = make([]corev1.Namespace, len(list.Items))
	for i, item := range list.Items {
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(item.Object, &first[i]); err != nil {
			return nil, 0, failure.From(err, failure.Object{Kind: "namespace", Name: item.GetName()})
		}
	}
	total = int64(len(first))
	if rest := list.GetRemainingItemCount(); rest != nil {
		total += *rest
	}
	return first, total, nil
}

func (c *Cluster) namespaces() dynamic.ResourceInterface {
	return c.Client.Resource(corev1.SchemeGroupVersion.WithResource("namespaces"))
}
