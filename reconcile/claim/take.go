package claim

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/agentpane/sandboxctl/reconcile/audit"
	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/pool"
	"github.com/agentpane/sandboxctl/render"
)

// rounds is how often a claim looks at the pool anew, after all that it knew of
// was taken by others. The pauses between come to 15 seconds: longer than a cache
// is late on a busy server.
const rounds = 20

// contested is how many rounds of these a claim tries to be the first at a ready
// pod. After two seconds, about what a start takes, it starts one instead: there
// may be a ready pod in every round, and somebody faster each time.
const contested = 8

// pause waits before round n, a while that is longer each time, so that those
// who were late together do not come together again. Its error is that ctx has
// ended.
func pause(ctx context.Context, n int) error {
	if n == 0 {
		return nil
	}
	longest := min(firstPause<<min(n-1, 10), lastPause)
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(longest/2 + rand.N(longest/2)):
		return nil
	}
}

// The first and the longest pause between two rounds.
const firstPause, lastPause = 10 * time.Millisecond, 1500 * time.Millisecond

// errTaken: the pod is not to be had any more, and will never be.
var errTaken = errors.New("another was faster, or the pod has changed")

// taking makes a pod of the pool the order's sandbox; its error is errTaken when
// the pool has changed meanwhile.
type taking func(context.Context, *order) (*unstructured.Unstructured, error)

// repeat does that until the pool is as it was seen.
func (c *Client) repeat(ctx context.Context, o order, take taking) (*unstructured.Unstructured, error) {
	for n := range rounds {
		if pause(ctx, n) != nil {
			return nil, ended(ctx, c.outrun(o, n))
		}
		o.late = n
		pod, err := take(ctx, &o)
		if !errors.Is(err, errTaken) {
			return pod, err
		}
	}
	return nil, c.outrun(o, rounds)
}

func (c *Client) outrun(o order, times int) *failure.Error {
	return failure.New(failure.WarmPoolAllocationFailed, c.about("pool", o.pool), "others were faster at every pod of pool %s, %d times", o.pool, times).
		WithHint("Claim again, or raise the pool's min.")
}

// take is the taking of a sandbox that nobody else can have heard of: a ready pod,
// else one that it starts.
func (c *Client) take(ctx context.Context, o *order) (*unstructured.Unstructured, error) {
	seen, err := c.source.look(ctx, o.pool)
	if err != nil {
		return nil, err
	}
	o.warm = seen.warm()
	outdated := false
	for _, pod := range seen.usable(*o) {
		if !c.source.stands(pod) {
			outdated = true
			continue
		}
		if !c.hold(pod.UID) {
			continue // another claim of this process is about to have it
		}
		outdated = true
		taken, err := c.patch(ctx, o.on(*pod, true, c.now()), *o)
		if errors.Is(err, errTaken) {
			c.source.tried(pod)
		}
		c.let(pod.UID)
		if !errors.Is(err, errTaken) {
			return taken, err
		}
	}
	if outdated {
		return nil, errTaken
	}
	return c.start(ctx, *o, seen)
}

// hold keeps a pod for one claim of this client; false when another has it.
func (c *Client) hold(uid types.UID) bool {
	_, held := c.held.LoadOrStore(uid, true)
	return !held
}

func (c *Client) let(uid types.UID) { c.held.Delete(uid) }

// usable are the pods that the order can have, in an order that spreads those who
// claim at once; none for one that was late too often, and can start a pod instead.
func (s sighting) usable(o order) []*pool.Pod {
	if o.late >= contested && (o.starts == nil || len(freeSlots(o, s)) > 0) {
		return nil
	}
	candidates := slices.DeleteFunc(slices.Clone(s.pods), func(p *pool.Pod) bool { return !p.Usable(o.blueprint, s.cordoned) })
	rand.Shuffle(len(candidates), func(i, j int) { candidates[i], candidates[j] = candidates[j], candidates[i] })
	return candidates
}

// warm is how many pods nobody has.
func (s sighting) warm() int {
	warm := 0
	for _, pod := range s.pods {
		if pod.Claim == nil && !pod.Going && pod.Ended == "" {
			warm++
		}
	}
	return warm
}

// start starts a pod that is the order's sandbox from its first moment, in a
// free slot. errTaken means that the pool has changed: look again. With any other
// error, the pod may be there all the same, and is returned.
func (c *Client) start(ctx context.Context, o order, seen sighting) (*unstructured.Unstructured, error) {
	slots := freeSlots(o, seen)
	if len(slots) == 0 {
		return nil, c.exhausted(o)
	}
	for _, slot := range slots {
		_, volume := o.starts.WarmPod(slot, c.random(nameLength))
		pod := pool.Pod{Name: o.starts.PodName(slot)}
		if volume != nil {
			pod.Volume = volume.GetName()
		}
		object := o.on(pod, false, c.now())
		object.SetResourceVersion(NoResourceVersion)
		made, err := c.patch(ctx, object, o)
		if errors.Is(err, errTaken) {
			continue
		}
		if err != nil {
			return made, err
		}
		return made, c.addVolume(ctx, made, volume)
	}
	c.source.tried()
	return nil, errTaken
}

// NoResourceVersion is one that no object has: applied with it, an object is
// made where there is none, and is refused where there is one.
const NoResourceVersion = "1"

// freeSlots are the slots that have no pod, in an order that spreads those who
// start pods at once.
func freeSlots(o order, seen sighting) []int {
	taken := map[string]bool{}
	for _, pod := range seen.pods {
		taken[pod.Name] = true
	}
	var free []int
	for slot := range o.starts.Max {
		if !taken[o.starts.PodName(slot)] {
			free = append(free, slot)
		}
	}
	rand.Shuffle(len(free), func(i, j int) { free[i], free[j] = free[j], free[i] })
	return free
}

func (c *Client) exhausted(o order) error {
	return failure.New(failure.WarmPoolExhausted, c.about("pool", o.starts.Name), "pool %s has as many pods as it may, %d, and none is free", o.starts.Name, o.starts.Max).
		With("maxSize", o.starts.Max).
		WithHint("Release what is no longer needed, or raise the pool's max.")
}

// addVolume makes the claim that a new pod waits for. It belongs to the pod, and
// goes with it, until a sandbox takes it over that keeps it.
func (c *Client) addVolume(ctx context.Context, pod, volume *unstructured.Unstructured) error {
	if volume == nil {
		return nil
	}
	volume = volume.DeepCopy()
	volume.SetOwnerReferences(ownedBy(pod.GetName(), pod.GetUID()))
	return c.applyVolume(ctx, volume, audit.PVCCreated)
}

// applyVolume applies a workspace's claim, and records that as the event.
func (c *Client) applyVolume(ctx context.Context, volume *unstructured.Unstructured, event audit.Event) error {
	if err := c.audit.Ready(); err != nil {
		return err
	}
	body, err := json.Marshal(volume)
	if err != nil {
		return err
	}
	_, err = c.volumes().Patch(ctx, volume.GetName(), types.ApplyPatchType, body, metav1.PatchOptions{FieldManager: render.Manager, Force: new(true)})
	if err != nil {
		return failure.From(err, c.about("persistentvolumeclaim", volume.GetName()))
	}
	return c.audit.Record(event, audit.Provider, aboutObject(volume), audit.Outcome{Metadata: map[string]any{
		"kind": volume.GetKind(), "storageSize": render.SizeOf(volume),
	}})
}

// ownedBy has an object go with that pod.
func ownedBy(pod string, uid types.UID) []metav1.OwnerReference {
	return []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod, UID: uid}}
}

// withGateway gives a pod the address of the fleet's egress gateway, if it waits
// for that. The client asks for it once: a Service keeps its address.
func (c *Client) withGateway(ctx context.Context, object *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	if !render.NeedsGateway(object) {
		return object, nil
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.gateway == "" {
		name := render.GatewayService(c.fleet)
		service, err := c.api.Resource(services).Namespace(c.fleet.Namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, failure.From(err, c.about("service", name))
		}
		if c.gateway = render.ServiceAddress(service); c.gateway == "" {
			return nil, failure.New(failure.PodCreationFailed, c.about("service", name), "the Service %s of the egress gateway has no address", name)
		}
	}
	return render.FillGateway(object, c.gateway), nil
}
