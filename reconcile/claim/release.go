package claim

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/agentpane/sandboxctl/reconcile/audit"
	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/pool"
	"github.com/agentpane/sandboxctl/reconcile/sandbox"
	"github.com/agentpane/sandboxctl/render"
)

// usable waits until the sandbox can be used, and describes it.
func (c *Client) usable(ctx context.Context, object *unstructured.Unstructured, o order) (Sandbox, error) {
	pod, _ := pool.Read(object)
	if pod.Claim != nil && pod.Volume != "" {
		if err := c.keepVolume(ctx, pod, o); err != nil {
			return Sandbox{}, err
		}
	}
	if !pod.Ready {
		err := c.waitReady(ctx, object)
		if pod.Claim != nil && pod.Claim.ID == o.id { // another claim of it tells of it, too
			err = errors.Join(err, c.started(object, o, err))
		}
		if err != nil {
			return Sandbox{}, err
		}
	}
	claimed := sandboxOf(pod)
	claimed.Took = c.now().Sub(o.begun)
	claimed.Again = pod.Claim != nil && pod.Claim.ID != o.id
	return claimed, nil
}

func sandboxOf(pod pool.Pod) Sandbox {
	claimed := Sandbox{Pool: pod.Pool, Pod: pod.Name, Namespace: pod.Namespace, UID: pod.UID}
	if claim := pod.Claim; claim != nil {
		claimed.Name, claimed.Project, claimed.Warm = claim.Sandbox, claim.Project, claim.Warm
		claimed.Until, claimed.Took = claim.Until, claim.Took
	}
	return claimed
}

// keepVolume makes a workspace that is to be retained the sandbox's own: it no
// longer goes with the pod. Any other one stays the pod's, as does that of a
// sandbox which an earlier claim had out of another pool.
func (c *Client) keepVolume(ctx context.Context, pod pool.Pod, o order) error {
	if pod.Pool != o.pool || o.starts == nil || o.starts.Volume == nil || o.starts.Volume.GetLabels()[render.RetainLabel] != "true" {
		return nil
	}
	volume := o.starts.Volume.DeepCopy()
	volume.SetName(pod.Volume)
	labels := volume.GetLabels()
	labels[render.SandboxIDLabel], labels[render.ProjectIDLabel] = pod.Claim.Sandbox, pod.Claim.Project
	volume.SetLabels(labels)
	return c.applyVolume(ctx, volume, audit.PVCUpdated)
}

// rewatchPause is the least time between two watches for a pod.
const rewatchPause = 100 * time.Millisecond

// waitReady waits by watch until the pod is ready; what keeps it from that is
// an error at once.
func (c *Client) waitReady(ctx context.Context, object *unstructured.Unstructured) error {
	for {
		version := object.GetResourceVersion()
		pause := time.After(rewatchPause) // a watch that breaks at once must not make this a storm
		done, err := c.watchReady(ctx, object.GetName(), object.GetUID(), version)
		if done || err != nil {
			return err
		}
		current, err := c.pods().Get(ctx, object.GetName(), metav1.GetOptions{})
		if err != nil {
			return c.unready(ctx, object.GetName(), err)
		}
		if done, err := c.judge(current, object.GetUID()); done || err != nil {
			return err
		}
		object = current
		<-pause
	}
}

func (c *Client) watchReady(ctx context.Context, name string, uid types.UID, version string) (bool, error) {
	events, err := c.pods().Watch(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String(), ResourceVersion: version,
	})
	if err != nil {
		return false, c.unready(ctx, name, err)
	}
	defer events.Stop()
	for {
		select {
		case <-ctx.Done():
			return false, c.unready(ctx, name, ctx.Err())
		case event, open := <-events.ResultChan():
			current, ok := event.Object.(*unstructured.Unstructured)
			if !open || !ok || current.GetKind() != "Pod" {
				return false, nil
			}
			if done, err := c.judge(current, uid); done || err != nil {
				return done, err
			}
		}
	}
}

// unready is why the wait for a pod has failed: that its time was over, rather than
// with which error that ended a request.
func (c *Client) unready(ctx context.Context, name string, err error) error {
	if ctx.Err() != nil {
		return ended(ctx, failure.New(failure.PodStartupTimeout, c.about("pod", name), "pod %s was not ready in time", name))
	}
	return failure.From(err, c.about("pod", name))
}

// judge tells whether the pod is ready, or never will be.
func (c *Client) judge(object *unstructured.Unstructured, uid types.UID) (bool, error) {
	if object.GetUID() != uid || object.GetDeletionTimestamp() != nil {
		went := failure.New(failure.WarmPodNotFound, c.about("pod", object.GetName()), "pod %s went before it was ready", object.GetName())
		if pod, _ := pool.Read(object); pod.Claim.Expired(c.now()) {
			went = went.WithHint("The claim's lease has run out meanwhile: claim for longer (--ttl).")
		}
		return false, went
	}
	var pod corev1.Pod
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &pod); err != nil {
		return false, err
	}
	reason, code := sandbox.NotReady(&pod)
	if reason != "" && code != "" && code != failure.InsufficientResources { // for that one, room may be made
		return false, failure.New(code, c.about("pod", pod.Name), "pod %s is not ready: %s", pod.Name, reason)
	}
	return reason == "", nil
}

// find returns the pod that a program has claimed under that name.
func (c *Client) find(ctx context.Context, name string) (pool.Pod, error) {
	pods, err := c.Pods(ctx, "")
	if err != nil {
		return pool.Pod{}, err
	}
	missing := failure.New(failure.WarmPodNotFound, c.about("sandbox", name), "no program has claimed a sandbox %s", name).
		WithHint("See which there are: sandboxctl status")
	for _, pod := range pods {
		if pod.Claim == nil || pod.Claim.Sandbox != name || pod.Going {
			continue
		}
		if pod.Claim.Until.IsZero() {
			return pool.Pod{}, failure.New(failure.AdoptionRefused, c.about("sandbox", name), "sandbox %s is the file's own", name).
				WithHint("Take it out of the file, or say state: stopped, and apply.")
		}
		return *pod, nil
	}
	return pool.Pod{}, missing
}

// Release ends a claim: its pod is deleted, with everything in it but a workspace
// that is to be retained. The failure is WarmPodNotFound where there is none.
func (c *Client) Release(ctx context.Context, name string) (Sandbox, error) {
	pod, err := c.find(ctx, name)
	if err != nil {
		return Sandbox{}, err
	}
	return sandboxOf(pod), c.release(ctx, pod)
}

func (c *Client) release(ctx context.Context, pod pool.Pod) error {
	if err := c.audit.Ready(); err != nil {
		return err
	}
	if err := c.Fold(ctx, pod); err != nil {
		return err
	}
	err := c.pods().Delete(ctx, pod.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) { // it has gone by itself
		return nil
	}
	if err != nil {
		return failure.From(err, c.about("pod", pod.Name))
	}
	return c.changed(audit.PodDeleted, audit.Provider, pod, map[string]any{"kind": "Pod"})
}

// undo releases the pod that a claim has taken which then failed: nobody will be
// told of it. It returns why the claim has failed, and that its sandbox is left
// behind where it is. object is nil for a claim that has taken none.
func (c *Client) undo(ctx context.Context, object *unstructured.Unstructured, o order, failed error) error {
	if object == nil {
		return failed
	}
	pod, _ := pool.Read(object)
	if pod.Claim == nil || pod.Claim.ID != o.id { // another claim of the name has it
		return failed
	}
	after, cancel := afterwards(ctx)
	defer cancel()
	if c.release(after, pod) != nil {
		return c.leftBehind(o, failed)
	}
	return failed
}

// leftBehind adds to why a claim has failed that its sandbox may be there.
func (c *Client) leftBehind(o order, failed error) error {
	return errors.Join(failed, failure.New(failure.WarmPoolAllocationFailed, c.about("sandbox", o.sandbox),
		"sandbox %s may be claimed all the same, and could not be released", o.sandbox).
		WithHint("It ends by itself; or end it: sandboxctl release %s", o.sandbox))
}

// Renew has a claim last for ttl from now on.
func (c *Client) Renew(ctx context.Context, name string, ttl time.Duration) (Sandbox, error) {
	if err := c.audit.Ready(); err != nil {
		return Sandbox{}, err
	}
	for {
		pod, err := c.find(ctx, name)
		if err != nil {
			return Sandbox{}, err
		}
		until := c.now().Add(ttl).UTC().Truncate(time.Second)
		body, err := json.Marshal(map[string]any{"metadata": map[string]any{
			"uid": pod.UID, "resourceVersion": pod.ResourceVersion,
			"annotations": map[string]any{render.LeaseUntilAnnotation: until.Format(time.RFC3339)},
		}})
		if err != nil {
			return Sandbox{}, err
		}
		_, err = c.pods().Patch(ctx, pod.Name, types.MergePatchType, body, metav1.PatchOptions{FieldManager: render.Manager})
		if apierrors.IsConflict(err) && ctx.Err() == nil { // its status has changed, or it is being released
			continue
		}
		if err != nil {
			return Sandbox{}, failure.From(err, c.about("pod", pod.Name))
		}
		renewed := sandboxOf(pod)
		renewed.Until, renewed.Again = until, true
		return renewed, c.changed(audit.PodUpdated, audit.WarmPool, pod, map[string]any{"kind": "Pod", "until": until})
	}
}

// Fold notes in the pool's state that a claimed pod goes now. It is done before
// the pod is deleted, and once only.
func (c *Client) Fold(ctx context.Context, pods ...pool.Pod) error {
	return c.changeState(ctx, func(states map[string]pool.State) bool {
		changed := false
		for _, pod := range pods {
			state := states[pod.Pool]
			if state.Fold(pod, c.now()) {
				states[pod.Pool], changed = state, true
			}
		}
		return changed
	})
}

// miss notes in the pool's state that a sandbox found no warm pod in it and has
// one of its own, which is none of the pool's.
func (c *Client) miss(ctx context.Context, name string) error {
	return c.changeState(ctx, func(states map[string]pool.State) bool {
		state := states[name]
		state.Misses++
		states[name] = state
		return true
	})
}

// States are what the cluster keeps of the pools beside their pods, by their
// names.
func (c *Client) States(ctx context.Context) (map[string]pool.State, error) {
	states, _, err := c.readStates(ctx)
	return states, err
}

func (c *Client) readStates(ctx context.Context) (map[string]pool.State, *unstructured.Unstructured, error) {
	states := map[string]pool.State{}
	name := render.PoolStateName(c.fleet.Name)
	object, err := c.kind("ConfigMap").Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return states, nil, nil
	}
	if err != nil {
		return nil, nil, failure.From(err, c.about("configmap", name))
	}
	data, _, _ := unstructured.NestedStringMap(object.Object, "data")
	for name, text := range data {
		state, err := pool.ReadState(text)
		if err != nil {
			state = pool.State{} // somebody has written into it: it only counts
		}
		states[name] = state
	}
	return states, object, nil
}

// changeState changes the pools' states as one, whoever else does so.
func (c *Client) changeState(ctx context.Context, change func(map[string]pool.State) bool) error {
	for {
		states, object, err := c.readStates(ctx)
		if err != nil || !change(states) {
			return err
		}
		missing := object == nil
		if missing {
			object = render.PoolState(c.fleet)
		}
		data, _, _ := unstructured.NestedStringMap(object.Object, "data")
		if data == nil {
			data = map[string]string{}
		}
		for name, state := range states {
			data[name] = state.String()
		}
		if err := unstructured.SetNestedStringMap(object.Object, data, "data"); err != nil {
			return err
		}
		if missing {
			_, err = c.kind("ConfigMap").Create(ctx, object, metav1.CreateOptions{FieldManager: render.Manager})
		} else {
			err = c.patchData(ctx, object, data)
		}
		if (apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err)) && ctx.Err() == nil {
			continue
		}
		return failure.From(err, c.about("configmap", object.GetName()))
	}
}

// patchData changes the ConfigMap, provided that nobody has since it was read.
func (c *Client) patchData(ctx context.Context, object *unstructured.Unstructured, data map[string]string) error {
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": object.GetUID(), "resourceVersion": object.GetResourceVersion()}, "data": data,
	})
	if err != nil {
		return err
	}
	_, err = c.kind("ConfigMap").Patch(ctx, object.GetName(), types.MergePatchType, body, metav1.PatchOptions{FieldManager: render.Manager})
	return err
}
