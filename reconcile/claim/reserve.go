package claim

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/agentpane/sandboxctl/reconcile/audit"
	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/pool"
	"github.com/agentpane/sandboxctl/render"
)

// A sandbox has at most one pod, also when many claim its name at once, with old
// caches, and crash or sleep at any point. What is certain about a Kubernetes
// object is only its name and its resourceVersion, so the name is reserved: a
// Lease named after the sandbox says which pod, by name and uid, may become the
// sandbox's. It is written before that pod is, and these are the rules:
//
//  1. A pod becomes the sandbox's only by a write that carries its uid and
//     resourceVersion, read while it was warm and the Lease named it.
//  2. The Lease turns to another pod only when the one it names can never become
//     the sandbox's any more: it is gone, or going, or another's. A claimed pod
//     never becomes warm again, so by then a write by rule 1, however late, is
//     refused. A pod that the file was to start, and has not, is given up by
//     taking the sandbox out of the file; one that comes late all the same goes.
//  3. A reserved pod that is warm but of no use is deleted first.
//
// The Lease belongs to the pod that it names: Kubernetes removes it when that is
// gone, which rule 2 allows. So nothing is left of a claim that crashed, and
// there is no expiry that a slow clock could misjudge.

var podKind = schema.GroupVersionKind{Version: "v1", Kind: "Pod"}

var leases = schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}

// reservation is what a Lease says.
type reservation struct {
	lease *unstructured.Unstructured
	// pod is the pod's name. Without a uid, it is to be made under that name,
	// which is nobody else's.
	pod string
	uid types.UID
}

// reservation reads the sandbox's; nil where there is none.
func (c *Client) reservation(ctx context.Context, sandbox string) (*reservation, error) {
	name := render.ReservationName(c.fleet, sandbox)
	lease, err := c.api.Resource(leases).Namespace(c.fleet.Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, failure.From(err, c.about("lease", name))
	}
	holder, _, _ := unstructured.NestedString(lease.Object, "spec", "holderIdentity")
	pod, uid, _ := strings.Cut(holder, "/")
	return &reservation{lease: lease, pod: pod, uid: types.UID(uid)}, nil
}

// reserve has the sandbox's Lease name the pod; errTaken when somebody else has
// written it meanwhile. held is the Lease as it was read, or nil.
func (c *Client) reserve(ctx context.Context, held *reservation, sandbox string, pod pool.Pod) error {
	lease := render.Reservation(c.fleet, sandbox)
	if pod.UID != "" {
		lease.SetOwnerReferences(ownedBy(pod.Name, pod.UID))
	}
	if err := unstructured.SetNestedField(lease.Object, pod.Name+"/"+string(pod.UID), "spec", "holderIdentity"); err != nil {
		return err
	}
	api := c.api.Resource(leases).Namespace(c.fleet.Namespace)
	var err error
	if held == nil {
		_, err = api.Create(ctx, lease, metav1.CreateOptions{FieldManager: render.Manager})
	} else {
		lease.SetUID(held.lease.GetUID())
		lease.SetResourceVersion(held.lease.GetResourceVersion())
		_, err = api.Update(ctx, lease, metav1.UpdateOptions{FieldManager: render.Manager})
	}
	if refused(err) {
		return errTaken
	}
	return failure.From(err, c.about("lease", lease.GetName()))
}

// errCold: the sandbox has to start on a pod of its own.
var errCold = errors.New("no warm pod fits")

// takeNamed is the taking of a sandbox whose name others may claim as well.
func (c *Client) takeNamed(ctx context.Context, o *order) (*unstructured.Unstructured, error) {
	held, err := c.reservation(ctx, o.sandbox)
	if err != nil {
		return nil, err
	}
	if pod, err := c.reserved(ctx, held, o); pod != nil || err != nil {
		return pod, err
	}
	// Under a name that another claim made up, it is there without a reservation.
	if pod, err := c.existing(ctx, o.sandbox, o.starts == nil); pod != nil || err != nil {
		return pod, err
	}
	candidate, err := c.candidate(ctx, o)
	if err != nil && !errors.Is(err, errCold) {
		return nil, err
	}
	if errors.Is(err, errCold) {
		candidate = pool.Pod{Name: o.object.GetName()}
	}
	if reserveErr := c.reserve(ctx, held, o.sandbox, candidate); reserveErr != nil {
		return nil, reserveErr
	}
	if errors.Is(err, errCold) {
		return nil, errCold
	}
	pod, err := c.patch(ctx, o.on(candidate, candidate.UID != o.started, c.now()), *o)
	if errors.Is(err, errTaken) {
		c.source.tried(&candidate)
	}
	return pod, err
}

// reserved does what a reservation that is there asks for: nil and nil when its
// pod can never become the sandbox's any more.
func (c *Client) reserved(ctx context.Context, held *reservation, o *order) (*unstructured.Unstructured, error) {
	switch {
	case held == nil:
		return nil, nil
	case held.uid == "" && o.starts == nil:
		return nil, errCold
	}
	current, err := c.pods().Get(ctx, held.pod, metav1.GetOptions{})
	if apierrors.IsNotFound(err) { // without a uid, it is of a file that had the sandbox, and has it no more
		return nil, nil
	}
	if err != nil {
		return nil, failure.From(err, c.about("pod", held.pod))
	}
	pod, ok := pool.Read(current)
	switch {
	case held.uid == "":
		return nil, c.declared(o.sandbox)
	case !ok || pod.UID != held.uid:
		return nil, nil
	case pod.Claim != nil && pod.Claim.Sandbox == o.sandbox:
		return c.theirs(current, o.starts == nil)
	case pod.Claim != nil || pod.Going:
		return nil, nil
	case pod.Ended != "" || pod.Blueprint != o.blueprint:
		return nil, c.discard(ctx, pod)
	}
	if c.audit != nil { // nobody else wants to know
		seen, err := c.source.look(ctx, o.pool)
		if err != nil {
			return nil, err
		}
		o.warm = seen.warm()
	}
	return c.patch(ctx, o.on(pod, pod.Ready && pod.UID != o.started, c.now()), *o)
}

// discard deletes a warm pod that is reserved and of no use. Its error is errTaken
// where that is done, as it was where the pod has changed meanwhile.
func (c *Client) discard(ctx context.Context, pod pool.Pod) error {
	if err := c.audit.Ready(); err != nil {
		return err
	}
	err := c.pods().Delete(ctx, pod.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &pod.UID, ResourceVersion: &pod.ResourceVersion},
	})
	switch {
	case refused(err):
		return errTaken
	case err != nil:
		return failure.From(err, c.about("pod", pod.Name))
	}
	return cmp.Or(c.changed(audit.WarmPoolPodDeleted, audit.WarmPool, pod, map[string]any{"kind": "Pod"}), errTaken)
}

// existing returns the pod that the sandbox has; nil where it has none.
func (c *Client) existing(ctx context.Context, sandbox string, forFile bool) (*unstructured.Unstructured, error) {
	list, err := c.pods().List(ctx, metav1.ListOptions{
		LabelSelector: render.PartOfLabel + "=" + render.ApplySetID(c.fleet) + "," + render.SandboxIDLabel + "=" + sandbox,
	})
	if err != nil {
		return nil, failure.From(err, c.about("pods", ""))
	}
	for i := range list.Items {
		list.Items[i].SetGroupVersionKind(podKind)
		return c.theirs(&list.Items[i], forFile)
	}
	return nil, nil
}

// theirs returns the sandbox's pod, provided that it is the program's or the
// file's who asks for it, and is to stay.
func (c *Client) theirs(object *unstructured.Unstructured, forFile bool) (*unstructured.Unstructured, error) {
	pod, ok := pool.Read(object)
	sandbox := object.GetLabels()[render.SandboxIDLabel]
	claimed := ok && pod.Claim != nil && !pod.Claim.Until.IsZero()
	switch {
	case object.GetDeletionTimestamp() != nil:
		return nil, failure.New(failure.PodAlreadyExists, c.about("pod", object.GetName()), "sandbox %s is still going away", sandbox).
			WithHint("Try again when its pod is gone.")
	case claimed && forFile:
		return nil, c.claimed(object.GetName(), sandbox)
	case !claimed && !forFile:
		return nil, c.declared(sandbox)
	case claimed && pod.Claim.Expired(c.now()):
		return nil, failure.New(failure.PodAlreadyExists, c.about("pod", pod.Name), "the claim of sandbox %s ran out at %s, and its pod goes with the next apply", sandbox, pod.Claim.Until.UTC().Format(time.RFC3339)).
			WithHint("End it, and claim again: sandboxctl release %s. Or keep it: sandboxctl claim --renew --name %s", sandbox, sandbox)
	}
	return object, nil
}

func (c *Client) claimed(pod, sandbox string) error {
	return failure.New(failure.AdoptionRefused, c.about("pod", pod), "a program has claimed a sandbox of that name, %s", sandbox).
		WithHint("Release it, or give the one of the file another name.")
}

func (c *Client) declared(sandbox string) error {
	return failure.New(failure.AdoptionRefused, c.about("sandbox", sandbox), "sandbox %s is the file's own: it is not to be claimed", sandbox).
		WithHint("Choose another name.")
}

// candidate is the pod to be reserved next: a ready one, else a new one, which
// is warm until it is claimed; errCold for a sandbox that starts by itself.
func (c *Client) candidate(ctx context.Context, o *order) (pool.Pod, error) {
	seen, err := c.source.look(ctx, o.pool)
	if err != nil {
		return pool.Pod{}, err
	}
	o.warm = seen.warm()
	if usable := seen.usable(*o); len(usable) > 0 {
		return *usable[0], nil
	}
	if o.starts == nil {
		return pool.Pod{}, errCold
	}
	pod, err := c.startWarm(ctx, *o, seen)
	o.started = pod.UID
	o.warm++
	return pod, err
}

// startWarm adds a pod to the pool, in a free slot.
func (c *Client) startWarm(ctx context.Context, o order, seen sighting) (pool.Pod, error) {
	slots := freeSlots(o, seen)
	if len(slots) == 0 {
		return pool.Pod{}, c.exhausted(o)
	}
	for _, slot := range slots {
		pod, err := c.Add(ctx, *o.starts, slot, c.now().Add(reservedFor))
		if !errors.Is(err, errTaken) {
			return pod, err
		}
	}
	c.source.tried()
	return pool.Pod{}, errTaken
}

// reservedFor is how long a pod that a claim has started is not one too many.
const reservedFor = time.Minute

// Add adds a warm pod to the pool, in that slot, with its volume; keep is until
// when it stays though it may be one too many. Where the slot is taken, that is
// an error of which Taken tells.
func (c *Client) Add(ctx context.Context, p render.Pool, slot int, keep time.Time) (pool.Pod, error) {
	object, volume := p.WarmPod(slot, c.random(nameLength))
	annotations := object.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[render.KeepUntilAnnotation] = keep.UTC().Format(time.RFC3339)
	object.SetAnnotations(annotations)
	return c.Make(ctx, object, volume)
}

// Make makes a warm pod, and its volume unless that is nil.
func (c *Client) Make(ctx context.Context, object, volume *unstructured.Unstructured) (pool.Pod, error) {
	object = object.DeepCopy()
	object.SetResourceVersion(NoResourceVersion)
	made, err := c.patch(ctx, object, order{id: "none", begun: c.now()})
	if err != nil {
		return pool.Pod{}, err
	}
	pod, _ := pool.Read(made)
	return pod, c.addVolume(ctx, made, volume)
}

// Taken tells whether an error says that a slot had a pod already.
func Taken(err error) bool { return errors.Is(err, errTaken) }
