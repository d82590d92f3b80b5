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
	var found []string // by list, so that the answer is always the same
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(concurrency)
	for _, list := range lists {
		version, err := k8sschema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return "", fmt.Errorf("reading which kinds of objects there are: %w", err)
		}
		for _, kind := range list.APIResources {
			if !slices.Contains(kind.Verbs, "list") || isRecord(version.Group, kind.Name) {
				continue
			}
			at := len(found)
			found = append(found, "")
			group.Go(func() (err error) {
				name, err := r.foreignOf(ctx, fleet, version.WithResource(kind.Name), version.WithKind(kind.Kind))
				found[at] = name
				return err
			})
		}
	}
	err = group.Wait()
	first := slices.IndexFunc(found, func(name string) bool { return name != "" })
	if err != nil || first < 0 {
		return "", err
	}
	return found[first], nil
}

// isRecord tells whether a kind only tells of other objects.
func isRecord(group, resource string) bool {
	return resource == "events" || group == "metrics.k8s.io"
}

// foreignOf is foreign for one kind.
func (r *Reconciler) foreignOf(ctx context.Context, fleet *schema.Fleet, resource k8sschema.GroupVersionResource, kind k8sschema.GroupVersionKind) (string, error) {
	objects, err := r.client.Resource(resource).Namespace(fleet.Namespace).List(ctx, metav1.ListOptions{LabelSelector: render.PartOfLabel + "!=" + render.ApplySetID(fleet)})
	switch {
	case apierrors.IsForbidden(err):
		return "whether any " + resource.Resource + " are in it may not be seen", nil
	case apierrors.IsNotFound(err), apierrors.IsMethodNotSupported(err):
		return "", nil // it is served no more, or cannot be listed after all
	case err != nil:
		return "", failure.From(err, failure.Object{Kind: resource.Resource, Namespace: fleet.Namespace})
	}
	for _, object := range objects.Items {
		if len(object.GetOwnerReferences()) == 0 && !comesWithNamespace(&object) && !belongsTo(fleet, &object) {
			return plan.Ref{GroupVersionKind: kind, Name: object.GetName()}.String() + " is in it, which is not this fleet's", nil
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
