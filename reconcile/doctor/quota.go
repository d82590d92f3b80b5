package doctor

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/render"
)

// quota looks whether the namespace's quotas have room for what is not there
// yet.
func (p Patient) quota(ctx context.Context) ([]Finding, error) {
	quotas, err := p.resource("", "v1", "resourcequotas", p.Fleet.Namespace).List(ctx, metav1.ListOptions{})
	if refused(err) {
		return bad(Unknown, "quota", "Have an administrator grant it: list resourcequotas.", "quotas may not be read"), nil
	}
	if err != nil {
		return nil, failure.From(err, failure.Object{Kind: "resourcequotas", Namespace: p.Fleet.Namespace})
	}
	if len(quotas.Items) == 0 {
		return nil, nil
	}
	live, err := p.live(ctx)
	if err != nil {
		return nil, err
	}
	coming, err := p.demand(live)
	if err != nil {
		return nil, err
	}
	var found []Finding
	for _, quota := range quotas.Items {
		found = append(found, coming.against(&quota)...)
	}
	if len(found) > 0 {
		return found, nil
	}
	return good("quota", "there is room for the %s that are to come", count(coming.pods, "pod")), nil
}

// live is what of the fleet counts against quotas, or says what is to count. What
// may not be read counts as if it were not there.
func (p Patient) live(ctx context.Context) (map[plan.Ref]*unstructured.Unstructured, error) {
	live := map[plan.Ref]*unstructured.Unstructured{}
	selector := metav1.ListOptions{LabelSelector: render.PartOfLabel + "=" + render.ApplySetID(p.Fleet)}
	for _, kind := range render.Kinds() {
		switch kind.Kind.Kind {
		case "Pod", "PersistentVolumeClaim", "Deployment", "ConfigMap": // the last are the notes on idle sandboxes
		default:
			continue
		}
		list, err := p.Client.Resource(kind.Resource).Namespace(p.Fleet.Namespace).List(ctx, selector)
		if refused(err) {
			continue
		}
		if err != nil {
			return nil, failure.From(err, failure.Object{Kind: kind.Resource.Resource, Namespace: p.Fleet.Namespace})
		}
		for i := range list.Items {
			live[plan.RefOf(&list.Items[i])] = &list.Items[i]
		}
	}
	return live, nil
}

// demand is what is to come.
type demand struct {
	pods, volumes int
	// amounts are by the names that quotas have for them.
	amounts map[string]resource.Quantity
}

// demand is what of the file is not there yet. A sandbox that has adopted a warm
// pod is that pod, and one that is stopped as idle gets none.
func (p Patient) demand(live map[plan.Ref]*unstructured.Unstructured) (demand, error) {
	coming := demand{amounts: map[string]resource.Quantity{}}
	idle := plan.IdleInput{Fleet: p.Fleet, Live: live}.Decide(nil)
	for _, object := range plan.Rebase(idle.On(p.Objects), live) {
		if live[plan.RefOf(object.Object)] == nil {
			coming.add(object.Object)
			coming.add(object.Volume)
		}
	}
	warm := map[string]int{}
	for _, object := range live {
		if labels := object.GetLabels(); object.GetKind() == "Pod" && render.IsWarm(labels) {
			warm[labels[render.PoolIDLabel]]++
		}
	}
	pools, err := render.Pools(p.Fleet)
	for _, pool := range pools {
		for n := warm[pool.Pod.GetLabels()[render.PoolIDLabel]]; n < pool.Min; n++ {
			coming.add(pool.Pod)
			coming.add(pool.Volume)
		}
	}
	return coming, err
}

// add counts an object, if it is one that counts; it can be nil.
func (d *demand) add(object *unstructured.Unstructured) {
	if object == nil {
		return
	}
	switch object.GetKind() {
	case "Pod":
		var pod corev1.Pod
		if fromUnstructured(object, &pod) == nil {
			d.addPods(1, pod.Spec)
		}
	case "Deployment":
		var deployment appsv1.Deployment
		if fromUnstructured(object, &deployment) == nil && deployment.Spec.Replicas != nil {
			d.addPods(int(*deployment.Spec.Replicas), deployment.Spec.Template.Spec)
		}
	case "PersistentVolumeClaim":
		var volume corev1.PersistentVolumeClaim
		if fromUnstructured(object, &volume) == nil {
			d.volumes++
			d.sum("persistentvolumeclaims", *resource.NewQuantity(1, resource.DecimalSI))
			d.sum("requests.storage", volume.Spec.Resources.Requests[corev1.ResourceStorage])
		}
	}
}

func (d *demand) addPods(n int, spec corev1.PodSpec) {
	for range n {
		d.pods++
		d.sum("pods", *resource.NewQuantity(1, resource.DecimalSI))
		for _, container := range spec.Containers {
			for name, amount := range container.Resources.Limits {
				d.sum("limits."+string(name), amount)
			}
			for name, amount := range container.Resources.Requests {
				d.sum("requests."+string(name), amount)
				d.sum(string(name), amount) // the same, by its short name
			}
		}
	}
}

func (d *demand) sum(name string, amount resource.Quantity) {
	total := d.amounts[name]
	total.Add(amount)
	d.amounts[name] = total
}

// against is what the quota has no room for.
func (d *demand) against(quota *unstructured.Unstructured) []Finding {
	hard, _, _ := unstructured.NestedStringMap(quota.Object, "status", "hard")
	used, _, _ := unstructured.NestedStringMap(quota.Object, "status", "used")
	var found []Finding
	for name, text := range hard {
		need, ok := d.amounts[name]
		room, err := resource.ParseQuantity(text)
		if !ok || err != nil {
			continue
		}
		if in, err := resource.ParseQuantity(used[name]); err == nil {
			room.Sub(in)
		}
		what := count(d.pods, "pod")
		if name == "persistentvolumeclaims" || name == "requests.storage" {
			what = count(d.volumes, "workspace")
		}
		if need.Cmp(room) > 0 {
			found = append(found, bad(Error, "quota", "Raise it, ask for less, or stop sandboxes that are not needed.",
				"quota %s has %s of %s left, and %s that are to come need %s", quota.GetName(), room.String(), name, what, need.String())...)
		}
	}
	return found
}
