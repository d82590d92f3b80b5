package reconcile

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/plan"
)

// CPU and memory of a running pod change by way of a subresource. What is
// applied there has an entry of its own in managedFields, so it is given
// nothing but resources, which the subresource would not take anyway; an apply
// of the whole configuration to the pod itself then does the rest.

const resizeSubresource = "resize"

// askResize asks whether CPU and memory are all that keeps a pod from being
// changed in place: with its live resources, the rest must be accepted, and
// with the wanted ones the resize. Whose fields may be taken over is decided by
// then.
func (r *Reconciler) askResize(ctx context.Context, q plan.Question, answer plan.Answer) (plan.Answer, bool) {
	rest := q.Desired.DeepCopy()
	body, ok := resizeBody(q.Desired)
	if !ok || !copyResources(q.Live, rest) {
		return answer, false
	}
	accepted, err := r.patch(ctx, rest, dryRun(true))
	if err != nil {
		return answer, false
	}
	resized, err := r.patch(ctx, body, dryRun(true), resizeSubresource)
	if err != nil || !copyResources(resized, accepted) {
		return answer, false
	}
	answer.Result, answer.Resize = accepted, true
	return answer, true
}

// resize changes CPU and memory of a running pod, and then the rest.
func (r *Reconciler) resize(ctx context.Context, change plan.Change) error {
	body, ok := resizeBody(change.Desired)
	if !ok {
		return outdated(change)
	}
	force := true // it conflicts with our own entry for the pod itself
	err := r.onSeen(ctx, change, func(change plan.Change) error {
		_, err := r.patch(ctx, on(change, body), metav1.PatchOptions{Force: &force}, resizeSubresource)
		return err
	})
	if err != nil {
		return err
	}
	change.ResourceVersion = "" // which the resize has changed
	_, err = r.patch(ctx, on(change, change.Desired), metav1.PatchOptions{Force: &change.Force})
	return failure.From(err, about(change.Ref))
}

// resizeBody is a pod's resources, by container, and nothing else.
func resizeBody(desired *unstructured.Unstructured) (*unstructured.Unstructured, bool) {
	containers, _, _ := unstructured.NestedSlice(desired.Object, "spec", "containers")
	var resources []any
	for _, item := range containers {
		container, ok := item.(map[string]any)
		if !ok {
			return nil, false
		}
		resources = append(resources, map[string]any{"name": container["name"], "resources": container["resources"]})
	}
	body := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"containers": resources}}}
	body.SetGroupVersionKind(desired.GroupVersionKind())
	body.SetNamespace(desired.GetNamespace())
	body.SetName(desired.GetName())
	return body, len(resources) > 0
}

// copyResources gives the containers of target the resources of those of
// source; false where they do not have the same containers.
func copyResources(source, target *unstructured.Unstructured) bool {
	from, _, _ := unstructured.NestedSlice(source.Object, "spec", "containers")
	to, _, _ := unstructured.NestedSlice(target.Object, "spec", "containers")
	if len(from) == 0 || len(from) != len(to) {
		return false
	}
	for i := range to {
		old, isObject := from[i].(map[string]any)
		container, isObjectToo := to[i].(map[string]any)
		if !isObject || !isObjectToo || old["name"] != container["name"] {
			return false
		}
		container["resources"] = old["resources"]
	}
	return unstructured.SetNestedSlice(target.Object, to, "spec", "containers") == nil
}
