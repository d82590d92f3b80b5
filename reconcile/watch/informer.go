package watch

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"

	"github.com/agentpane/sandboxctl/reconcile/connection"
	"github.com/agentpane/sandboxctl/render"
)

// newInformer makes the informer of a kind, of what is selected. What it keeps
// of each object is trimmed.
func (m *mirror) newInformer(client dynamic.Interface, kind render.Kind, selector metav1.ListOptions, changed func(before, after *unstructured.Unstructured), reached func(kind string, err error)) (cache.SharedIndexInformer, error) {
	var resource dynamic.ResourceInterface = client.Resource(kind.Resource)
	if kind.Namespaced {
		resource = client.Resource(kind.Resource).Namespace(m.fleet.Namespace)
	}
	selected := func(options metav1.ListOptions) metav1.ListOptions {
		options.LabelSelector, options.FieldSelector = selector.LabelSelector, selector.FieldSelector
		return options
	}
	informer := cache.NewSharedIndexInformerWithOptions(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return resource.List(ctx, selected(options))
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			if resumed := options.SendInitialEvents == nil; resumed && m.isUnseen(kind.Kind.Kind) {
				if err := connection.CanResume(ctx, resource, selected(metav1.ListOptions{Limit: 1}), options.ResourceVersion); err != nil {
					return nil, err
				}
			}
			events, err := resource.Watch(ctx, selected(options))
			if err == nil || net.IsConnectionRefused(err) { // which client-go tells nobody
				reached(kind.Kind.Kind, err)
			}
			return events, err
		},
	}, &unstructured.Unstructured{}, cache.SharedIndexInformerOptions{
		Indexers:          cache.Indexers{scopeIndex: indexScope, egressIndex: indexEgress, poolIndex: m.indexPooled},
		ObjectDescription: kind.Kind.String(),
	})
	if err := informer.SetTransform(func(object any) (any, error) {
		if object, ok := object.(*unstructured.Unstructured); ok {
			object.SetGroupVersionKind(kind.Kind) // a LIST leaves it out of its items
			trim(object)
		}
		return object, nil
	}); err != nil {
		return nil, err
	}
	if err := informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) { reached(kind.Kind.Kind, err) }); err != nil {
		return nil, err
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(after any) { changed(nil, after.(*unstructured.Unstructured)) },
		UpdateFunc: func(before, after any) {
			changed(before.(*unstructured.Unstructured), after.(*unstructured.Unstructured))
		},
		DeleteFunc: func(before any) {
			if tombstone, ok := before.(cache.DeletedFinalStateUnknown); ok { // the watch missed it
				before = tombstone.Obj
			}
			if before, ok := before.(*unstructured.Unstructured); ok {
				m.gone(before)
				changed(before, nil)
			}
		},
	})
	return informer, err
}

// trim drops what a plan does not look at: of managedFields the fields of other
// managers, whose names are kept, and the status of what has none of interest.
func trim(object *unstructured.Unstructured) {
	metadata, _ := object.Object["metadata"].(map[string]any)
	entries, _ := metadata["managedFields"].([]any)
	for _, entry := range entries {
		if entry, ok := entry.(map[string]any); ok && entry["manager"] != render.Manager {
			delete(entry, "fieldsV1")
		}
	}
	if kind := object.GetKind(); kind != "Pod" && kind != "Namespace" {
		delete(object.Object, "status")
	}
}
