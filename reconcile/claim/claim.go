// Package claim takes pods out of warm pools and gives them to sandboxes, for
// programs and for package reconcile.
//
// A claim is one PATCH: the sandbox applied onto a warm pod, with the pod's uid
// and resourceVersion. Whoever is late gets a 409, and tries the next pod; that a
// cache was old costs a request, and never gives a pod to two. A pod that was
// claimed once is never given back.
//
// A [Client] works one-shot: each claim lists the pool first. After
// [Client.Start] it knows the pool by a watch, and a claim under a name of its
// own making is exactly that one write. A claim under a name that is given must
// be the only one of that name, whoever else claims it at the same time: so the
// name is reserved first, see reserve.go.
//
// The package never makes a policy: apply has made the ones that its pods need,
// and a pod without one reaches nothing. It never prints.
package claim

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/agentpane/sandboxctl/reconcile/audit"
	"github.com/agentpane/sandboxctl/reconcile/connection"
	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/pool"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

// RandomText returns n letters and digits that nobody can guess; n is at most 26.
func RandomText(n int) string { return strings.ToLower(rand.Text()[:n]) }

// DefaultTTL is how long a claim lasts that does not say.
const DefaultTTL = time.Hour

// Client claims out of the pools of one fleet. It may be used by several
// goroutines at once.
type Client struct {
	fleet *schema.Fleet
	pools []render.Pool
	api   dynamic.Interface
	now   func() time.Time
	// random returns that many letters and digits that nobody can guess.
	random func(n int) string
	by     string
	source source
	// audit records what is done; nil where nothing is recorded.
	audit *audit.Recorder
	// tell is told of pods as they were written.
	tell func(*unstructured.Unstructured)
	// held are the pods that a claim of this client is about to have.
	held sync.Map

	mutex sync.Mutex // protects gateway
	// gateway is the address of the fleet's egress gateway, once it is known.
	gateway string
}

// New returns a client for the fleet on the cluster of that configuration. by
// is who claims, as people are told. It does not touch the cluster.
func New(config *rest.Config, fleet *schema.Fleet, now func() time.Time, random func(n int) string, by string) (*Client, error) {
	api, _, err := connection.NewClients(config)
	if err != nil {
		return nil, fmt.Errorf("setting up the client: %w", err)
	}
	return NewFor(api, fleet, now, random, by)
}

// NewFor is New with a client that is there already.
func NewFor(api dynamic.Interface, fleet *schema.Fleet, now func() time.Time, random func(n int) string, by string) (*Client, error) {
	pools, err := render.Pools(fleet)
	if err != nil {
		return nil, err
	}
	c := &Client{fleet: fleet, pools: pools, api: api, now: now, random: random, by: by, tell: func(*unstructured.Unstructured) {}}
	c.source = lister{c}
	return c, nil
}

// Tell has the client tell of each pod that it writes, as the server has stored
// it, before it does anything else. It is called before the first claim.
func (c *Client) Tell(tell func(*unstructured.Unstructured)) { c.tell = tell }

// Request is what is claimed.
type Request struct {
	// Pool is the pool's name in the file.
	Pool string
	// Name is the sandbox's; empty for one that the claim makes. Claiming the
	// same name again returns the same sandbox.
	Name string
	// Project is what it works on; empty for its own name.
	Project string
	// TTL is how long the claim lasts unless it is renewed; 0 is DefaultTTL.
	TTL time.Duration
	// Env is the sandbox's own environment, beside the template's.
	Env map[string]string
}

// Sandbox is what was claimed.
type Sandbox struct {
	Name, Project, Pool string
	Pod, Namespace      string
	UID                 types.UID
	// Warm: the pod was there and ready. Else the claim has started one.
	Warm bool
	// Took is how long the claim took until the sandbox could be used.
	Took time.Duration
	// Until is when the claim ends by itself.
	Until time.Time
	// Again: the name was claimed before, and this is that sandbox. Differs tells
	// what of the request it does not have: pool, project, env NAME.
	Again   bool
	Differs []string
}

// Claim claims a sandbox, and returns when it can be used: at once for a warm
// one, and for one that had to be started when its pod is ready. The failures
// are WarmPoolNotEnabled, WarmPoolExhausted, WarmPoolAllocationFailed, and what
// keeps a pod from becoming ready. Of a claim that fails nothing is left; else its
// error says what to release.
func (c *Client) Claim(ctx context.Context, request Request) (Sandbox, error) {
	begun := c.now()
	p, err := c.pool(request.Pool)
	if err != nil {
		return Sandbox{}, err
	}
	o := order{pool: p.Pod.GetLabels()[render.PoolIDLabel], blueprint: p.Hash, begun: begun, id: c.random(idLength), starts: &p}
	claim := render.Claim{Sandbox: request.Name, Project: request.Project, Env: request.Env}
	if claim.Sandbox == "" {
		claim.Sandbox = p.Name + "-" + c.random(nameLength)
	}
	if claim.Project == "" {
		claim.Project = claim.Sandbox
	}
	ttl := request.TTL
	if ttl <= 0 {
		ttl = DefaultTTL
	}
	claim.Annotations = map[string]string{
		render.ClaimedByAnnotation:  c.by,
		render.LeaseUntilAnnotation: begun.Add(ttl).UTC().Format(time.RFC3339),
	}
	o.object = p.Claimed(claim)
	o.sandbox = o.object.GetLabels()[render.SandboxIDLabel]
	take := taking(c.take)
	if request.Name != "" {
		if _, declared := c.fleet.Sandbox(request.Name); declared {
			return Sandbox{}, failure.New(failure.AdoptionRefused, failure.Object{Kind: "sandbox", Name: request.Name},
				"sandbox %s is the file's own: it is not to be claimed", request.Name).WithHint("Choose another name.")
		}
		take = c.takeNamed
	}
	pod, err := c.repeat(ctx, o, take)
	var claimed Sandbox
	if err == nil {
		claimed, err = c.usable(ctx, pod, o)
	}
	if err != nil {
		return Sandbox{}, c.undo(ctx, pod, o, err)
	}
	if claimed.Again {
		claimed.Differs = request.differs(o.object, pod)
	}
	return claimed, nil
}

const (
	// nameLength and idLength are 40 and 80 bits: the first tells a pool's
	// claims apart, the second all claims ever.
	nameLength, idLength = 8, 16
)

// pool returns the pool of that name.
func (c *Client) pool(name string) (render.Pool, error) {
	var names []string
	for _, p := range c.pools {
		if p.Name == name {
			return p, nil
		}
		names = append(names, p.Name)
	}
	hint := "Declare it in the file, under pools."
	if len(names) > 0 {
		hint = strings.TrimSpace("The file has " + strings.Join(names, ", ") + ". " + diagnostic.DidYouMean(name, names))
	}
	return render.Pool{}, failure.New(failure.WarmPoolNotEnabled, failure.Object{Kind: "pool", Name: name}, "there is no pool %s", diagnostic.Quote(name)).
		WithHint("%s", hint)
}

// order is a claim that is to be made.
type order struct {
	sandbox, pool string // as labels have them
	blueprint     string
	// object makes a warm pod the sandbox's: see render.OnPod.
	object *unstructured.Unstructured
	begun  time.Time
	id     string
	// starts is the pool that a pod is added to where none is ready; nil for a
	// sandbox that starts on a pod of its own.
	starts *render.Pool
	// started is the pod that it has added.
	started types.UID
	// late is in how many rounds others were faster.
	late int
	// warm is how many pods the pool was last seen to have that nobody has.
	warm int
}

// on is what makes that pod the order's sandbox, provided that it is as it was
// seen.
func (o order) on(pod pool.Pod, warm bool, now time.Time) *unstructured.Unstructured {
	object := render.OnPod(o.object.DeepCopy(), pod.Name, pod.Volume)
	object.SetUID(pod.UID)
	object.SetResourceVersion(pod.ResourceVersion)
	annotations := object.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[render.OriginAnnotation] = render.Origin(warm)
	annotations[render.ClaimIDAnnotation] = o.id
	annotations[render.ClaimedAtAnnotation] = now.UTC().Format("2006-01-02T15:04:05.000Z07:00")
	annotations[render.ClaimTimeAnnotation] = fmt.Sprint(now.Sub(o.begun).Milliseconds())
	object.SetAnnotations(annotations)
	return object
}

func (c *Client) pods() dynamic.ResourceInterface { return c.kind("Pod") }

func (c *Client) volumes() dynamic.ResourceInterface { return c.kind("PersistentVolumeClaim") }

func (c *Client) kind(name string) dynamic.ResourceInterface {
	for _, kind := range render.Kinds() {
		if kind.Kind.Kind == name {
			return c.api.Resource(kind.Resource).Namespace(c.fleet.Namespace)
		}
	}
	panic("no kind of ours: " + name)
}

// poolSelector selects all pods of the fleet's pools, or of one of them.
func (c *Client) poolSelector(id string) metav1.ListOptions {
	selector := render.PartOfLabel + "=" + render.ApplySetID(c.fleet) + "," + render.WarmPoolLabel + "=true"
	if id != "" {
		selector += "," + render.PoolIDLabel + "=" + id
	}
	return metav1.ListOptions{LabelSelector: selector}
}

func (c *Client) about(kind, name string) failure.Object {
	return failure.Object{Kind: kind, Namespace: c.fleet.Namespace, Name: name}
}
