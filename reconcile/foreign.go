package reconcile

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	k8sschema "k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// foreign says what of somebody else is in the fleet's namespace, of whatever
// kind the server has; empty where there is nothing. What may not be listed
// counts as there.
func (r *Reconciler) foreign(ctx context.Context, fleet *schema.Fleet) (string, error) {
	client, err := discovery.NewDiscoveryClientForConfig(r.config)
	if err != nil {
		return "", fmt.Errorf("setting up the client: %w", err)
	}
	lists, err := client.ServerPreferredNamespacedResourcesWithContext(ctx)
	silent, partial := discovery.GroupDiscoveryFailedErrorGroups(err)
	if err != nil && !partial {
		return "", failure.From(err, failure.Object{Kind: "kinds of objects"})
	}
	for version := range silent {
		if !isRecord(version.Group, "") {
			return "whether anything of " + version.String() + " is in it cannot be told at present", nil
		}
	}
	kinds, err := listable(lists)
	if err != nil {
		return "", err
	}
	found := make([]string, len(kinds))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(concurrency)
	for i, kind := range kinds {
		group.Go(func() (err error) {
			found[i], err = r.foreignOf(ctx, fleet, kind)
			return err
		})
	}
	err = group.Wait()
	first := slices.IndexFunc(found, func(what string) bool { return what != "" })
	if err != nil || first < 0 {
		return "", err
	}
	return found[first], nil
}

// listable are the kinds that can be listed, but for those that only tell of
// other objects.
func listable(lists []*metav1.APIResourceList) ([]render.Kind, error) {
	var kinds []render.Kind
	for _, list := range lists {
		version, err := k8sschema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, fmt.Errorf("reading which kinds of objects there are: %w", err)
		}
		for _, kind := range list.APIResources {
			if slices.Contains(kind.Verbs, "list") && !isRecord(version.Group, kind.Name) {
				kinds = append(kinds, render.Kind{Kind: version.WithKind(kind.Kind), Resource: version.WithResource(kind.Name), Namespaced: true})
			}
		}
	}
	return kinds, nil
}

// isRecord tells whether a kind only tells of other objects.
func isRecord(group, resource string) bool {
	return resource == "events" || group == "metrics.k8s.io"
}

// foreignOf is foreign for one kind.
func (r *Reconciler) foreignOf(ctx context.Context, fleet *schema.Fleet, kind render.Kind) (string, error) {
	objects, err := r.client.Resource(kind.Resource).Namespace(fleet.Namespace).List(ctx, metav1.ListOptions{LabelSelector: render.PartOfLabel + "!=" + render.ApplySetID(fleet)})
	switch {
	case apierrors.IsForbidden(err):
		return "whether any " + kind.Resource.Resource + " are in it may not be seen", nil
	case apierrors.IsNotFound(err), apierrors.IsMethodNotSupported(err):
		return "", nil // it is served no more, or cannot be listed after all
	case err != nil:
		return "", failure.From(err, failure.Object{Kind: kind.Resource.Resource, Namespace: fleet.Namespace})
	}
	for _, object := range objects.Items {
		if len(object.GetOwnerReferences()) == 0 && !comesWithNamespace(&object) && !belongsTo(fleet, &object) {
			return plan.Ref{GroupVersionKind: kind.Kind, Name: object.GetName()}.String() + " is in it, which is not this fleet's", nil
		}
	}
	return "", nil
}

// comesWithNamespace: Kubernetes makes it in every namespace.
func comesWithNamespace(object *unstructured.Unstructured) bool {
	return object.GetKind() == "ConfigMap" && object.GetName() == "kube-root-ca.crt" ||
		object.GetKind() == "ServiceAccount" && object.GetName() == "default"
}

// belongsTo: the fleet has it although it does not carry its label.
func belongsTo(fleet *schema.Fleet, object *unstructured.Unstructured) bool {
	return object.GetKind() == "ConfigMap" && object.GetName() == render.ParentName(fleet) ||
		object.GetKind() == "Lease" && (object.GetName() == render.WatchLease(fleet) || object.GetLabels()[render.FleetLabel] == fleet.Name)
}

// Neighbours are the other fleets in the fleet's namespace: one of them may be the
// fleet under the name that it had. Whoever may not list what tells of them sees
// none.
func (r *Reconciler) Neighbours(ctx context.Context, fleet *schema.Fleet) ([]plan.Kept, error) {
	parents := plan.RefOf(render.Parent(fleet, nil))
	list, err := r.resource(parents).List(ctx, metav1.ListOptions{
		LabelSelector: render.ManagedLabel + "=true," + render.ApplySetLabel + "," + render.ApplySetLabel + "!=" + render.ApplySetID(fleet),
	})
	if apierrors.IsForbidden(err) {
		return nil, nil
	}
	if err != nil {
		return nil, failure.From(err, failure.Object{Kind: "configmaps", Namespace: fleet.Namespace})
	}
	var neighbours []plan.Kept
	for _, parent := range list.Items {
		neighbours = append(neighbours, plan.Kept{
			Ref:    plan.Ref{GroupVersionKind: k8sschema.GroupVersionKind{Kind: "Fleet"}, Namespace: fleet.Namespace, Name: parent.GetLabels()[render.FleetLabel]},
			Reason: "it is another fleet in namespace " + fleet.Namespace + ". If it is this one under its old name, remove it by its old file: sandboxctl destroy",
		})
	}
	return neighbours, nil
}
