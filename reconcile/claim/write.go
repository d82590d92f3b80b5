package claim

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/pool"
	"github.com/agentpane/sandboxctl/reconcile/proof"
	"github.com/agentpane/sandboxctl/render"
)

// patch applies a pod as write does, and records that. What cannot be recorded
// is not begun.
func (c *Client) patch(ctx context.Context, object *unstructured.Unstructured, o order) (*unstructured.Unstructured, error) {
	if err := c.audit.Ready(); err != nil {
		return nil, err
	}
	result, err := c.write(ctx, object, o)
	if recordErr := c.wrote(object, result, o, err); recordErr != nil {
		return result, errors.Join(err, recordErr)
	}
	return result, err
}

// firstRetry is the round whose pause is the first before a write is repeated:
// some 60 ms.
const firstRetry = 4

// write applies a pod, with its precondition, and returns it as it then is;
// errTaken when it is not to be had. An answer that is lost leaves open whether
// the write was done: it is repeated, which does no harm, until the server
// says so, or ctx ends. With any other error, the pod may be the order's all the
// same, and is returned where that is known.
func (c *Client) write(ctx context.Context, object *unstructured.Unstructured, o order) (*unstructured.Unstructured, error) {
	object, err := c.withGateway(ctx, object)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	asMade := false
	var lost error // what the server, or the network, said instead of an answer
	for n := firstRetry; ; n++ {
		result, err := c.pods().Patch(ctx, object.GetName(), types.ApplyPatchType, body, metav1.PatchOptions{FieldManager: render.Manager})
		switch {
		case err == nil:
			c.source.took(result)
			c.tell(result)
			return result, nil
		case refused(err) && lost == nil:
			return nil, errTaken
		case apierrors.IsInvalid(err) && lost == nil && !asMade:
			asMade = true
			if body, err = c.asMade(ctx, object, err); err != nil {
				return nil, err
			}
			continue
		case refused(err): // by the write that was done, or by another's
			pod, err := c.whose(ctx, object.GetName(), o)
			if err == nil || errors.Is(err, errTaken) {
				return pod, err
			}
			return c.unsure(ctx, object.GetName(), o, err)
		case !uncertain(err) && lost == nil:
			return nil, c.allocationFailed(object.GetName(), err)
		case !uncertain(err):
			return c.unsure(ctx, object.GetName(), o, err)
		case lost == nil || ctx.Err() == nil: // that ctx has ended says less
			lost = err
		}
		if pause(ctx, n) != nil {
			return c.unsure(ctx, object.GetName(), o, lost)
		}
	}
}

// asMade is what to write instead of an object that a pod refuses: a pod's spec
// cannot be changed, and admission may have changed it when the pod was made, as
// AlwaysPullImages does. So it is the spec that the pod has, unless that knows
// another gateway.
func (c *Client) asMade(ctx context.Context, object *unstructured.Unstructured, refusal error) ([]byte, error) {
	failed := c.allocationFailed(object.GetName(), refusal)
	live, err := c.pods().Get(ctx, object.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, failed
	}
	if err != nil {
		return nil, c.allocationFailed(object.GetName(), err)
	}
	c.mutex.Lock()
	c.gateway = "" // it may be another by now
	c.mutex.Unlock()
	wanted, _, _ := unstructured.NestedFieldNoCopy(object.Object, "spec", "dnsConfig")
	has, _, _ := unstructured.NestedFieldNoCopy(live.Object, "spec", "dnsConfig")
	spec, found := proof.Owned(live, render.Manager)["spec"]
	if !found || !equality.Semantic.DeepEqual(wanted, has) {
		return nil, failed
	}
	object = object.DeepCopy()
	object.Object["spec"] = spec
	return json.Marshal(object)
}

// whose returns the pod if the order's own write made it what it is.
func (c *Client) whose(ctx context.Context, name string, o order) (*unstructured.Unstructured, error) {
	current, err := c.pods().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, errTaken
	}
	if err != nil {
		return nil, c.allocationFailed(name, err)
	}
	pod, ok := pool.Read(current)
	if ok && pod.Claim != nil && pod.Claim.ID == o.id {
		return current, nil
	}
	return nil, errTaken
}

// unsure returns why a write has failed that may have been done before, with the
// pod if it was.
func (c *Client) unsure(ctx context.Context, name string, o order, err error) (*unstructured.Unstructured, error) {
	failed := c.allocationFailed(name, err)
	if errors.Is(ctx.Err(), context.Canceled) {
		failed = context.Cause(ctx)
	}
	if o.starts == nil { // the file's, or the pool's own: who comes next sees to it
		return nil, failed
	}
	after, cancel := afterwards(ctx)
	defer cancel()
	pod, err := c.whose(after, name, o)
	if err != nil && !errors.Is(err, errTaken) {
		failed = c.leftBehind(o, failed)
	}
	return pod, failed
}

// refused: the server has not done it, and never will at that uid and
// resourceVersion.
func refused(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsNotFound(err) || apierrors.IsAlreadyExists(err) || immutableUID(err)
}

// immutableUID: the name is another pod's by now.
func immutableUID(err error) bool {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok || status.ErrStatus.Details == nil {
		return false
	}
	return slices.ContainsFunc(status.ErrStatus.Details.Causes, func(cause metav1.StatusCause) bool { return cause.Field == "metadata.uid" })
}

// uncertain: the server may have done it. An answer of its own that says no is
// certain, also where it says so as if it were its own fault: that it could not
// ask a webhook, or does not know a field.
func uncertain(err error) bool {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok {
		return true
	}
	switch failure.CodeOf(failure.From(status, failure.Object{})) {
	case failure.AdmissionRefused, failure.Invalid:
		return false
	}
	return status.ErrStatus.Code >= 500 || apierrors.IsTooManyRequests(err) || apierrors.IsTimeout(err)
}

func (c *Client) allocationFailed(name string, err error) error {
	if err = failure.From(err, c.about("pod", name)); failure.CodeOf(err) != failure.APIError {
		return err
	}
	return failure.New(failure.WarmPoolAllocationFailed, c.about("pod", name), "pod %s could not be claimed: %v", name, err).Because(err)
}

// ended is why something was given up as ctx has ended: in place of the failure
// an interrupt itself, which is none.
func ended(ctx context.Context, failed *failure.Error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return context.Cause(ctx)
	}
	return failed.Because(context.Cause(ctx))
}

// afterwards is a context for what a claim has still to do after its own has
// ended.
func afterwards(ctx context.Context) (context.Context, context.CancelFunc) {
	const timeout = 10 * time.Second
	return context.WithTimeout(context.WithoutCancel(ctx), timeout)
}
