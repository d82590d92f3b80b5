package claim

import (
	"cmp"
	"context"
	"errors"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/reconcile/audit"
	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/pool"
	"github.com/agentpane/sandboxctl/render"
)

// Adoption is a sandbox of the file that has no pod and may adopt one.
type Adoption struct {
	// Pool and Sandbox are their names as labels have them.
	Pool, Sandbox string
	// Object is the sandbox on a warm pod, Cold the name of the pod that it has
	// otherwise.
	Object *unstructured.Unstructured
	Cold   string
	// Volume is the claim of its workspace; the one that comes with a warm pod
	// becomes that. It is nil where there is none.
	Volume *unstructured.Unstructured
}

// Adopt gives a sandbox a pod out of the pool, and returns that pod; nil when it
// is to start cold, under the name that is reserved for it then.
func (c *Client) Adopt(ctx context.Context, a Adoption) (*unstructured.Unstructured, error) {
	object := a.Object.DeepCopy()
	object.SetName(a.Cold)
	o := order{
		sandbox: a.Sandbox, pool: a.Pool, blueprint: object.GetLabels()[render.BlueprintLabel],
		object: object, begun: c.now(), id: c.random(idLength),
	}
	adopted, err := c.repeat(ctx, o, c.takeNamed)
	if errors.Is(err, errCold) {
		return nil, nil
	}
	if err != nil || a.Volume == nil {
		return adopted, err
	}
	pod, _ := pool.Read(adopted)
	if pod.Volume == "" {
		return adopted, nil
	}
	volume := a.Volume.DeepCopy()
	volume.SetName(pod.Volume)
	return adopted, c.applyVolume(ctx, volume, audit.PVCUpdated)
}

// Settle has the reservation of a sandbox that has started cold go with its pod,
// and counts that as a miss of the pool. Until then the sandbox starts under no
// other name. Where a program has taken the name over before there was the pod,
// the pod goes: that is an error.
func (c *Client) Settle(ctx context.Context, a Adoption) error {
	object, err := c.pods().Get(ctx, a.Cold, metav1.GetOptions{})
	if err != nil {
		return failure.From(err, c.about("pod", a.Cold))
	}
	if err := c.miss(ctx, a.Pool); err != nil {
		return err
	}
	for {
		held, err := c.reservation(ctx, a.Sandbox)
		if err != nil || held == nil {
			return err
		}
		if held.pod != a.Cold {
			return c.giveWay(ctx, object, a.Sandbox)
		}
		err = c.reserve(ctx, held, a.Sandbox, pool.Pod{Name: a.Cold, UID: object.GetUID()})
		if !errors.Is(err, errTaken) {
			return err
		}
	}
}

// giveWay deletes the pod that the file has started for a sandbox which is a
// program's by now.
func (c *Client) giveWay(ctx context.Context, object *unstructured.Unstructured, sandbox string) error {
	if err := c.audit.Ready(); err != nil {
		return err
	}
	pod := pool.Pod{Name: object.GetName(), Namespace: object.GetNamespace(), UID: object.GetUID()}
	err := c.pods().Delete(ctx, pod.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}})
	if err != nil && !refused(err) {
		return failure.From(err, c.about("pod", pod.Name))
	}
	return cmp.Or(c.changed(audit.PodDeleted, audit.Provider, pod, map[string]any{"kind": "Pod"}), c.claimed(pod.Name, sandbox))
}
