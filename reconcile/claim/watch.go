package claim

import (
	"context"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/agentpane/sandboxctl/reconcile/connection"
	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/pool"
)

// Start has the client know the fleet's pools by a watch from now on: a claim
// then asks for nothing before it writes. It returns when what there is is
// known; its error says whose right lacks, or that ctx has ended before. Wait must
// be called after ctx has ended; it returns when nothing of the client runs any
// more.
func (c *Client) Start(ctx context.Context) (wait func(), err error) {
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	wait = func() { running.Wait(); stop() }
	pods, cordoned := newPodStore(c.now), newNameStore()
	refusals := make(chan error, 1)
	running.Go(func() {
		reflect(ctx, podKind.Kind, needed(listWatch(c.pods(), c.poolSelector("")), refusals), pods)
	})
	running.Go(func() {
		api := c.api.Resource(nodes)
		reflect(ctx, "Node", optional(listWatch(api, metav1.ListOptions{FieldSelector: CordonedNodes})), cordoned)
	})
	if err := c.synced(ctx, refusals, pods.synced, cordoned.synced); err != nil {
		stop()
		wait()
		return nil, err
	}
	c.source = watcher{pods, cordoned}
	return wait, nil
}

// synced waits until the stores are filled.
func (c *Client) synced(ctx context.Context, refusals <-chan error, stores ...chan struct{}) error {
	about := c.about("pods", "")
	for _, store := range stores {
		select {
		case <-ctx.Done():
			return ended(ctx, failure.New(failure.WarmPoolDiscoveryFailed, about, "the pods of the pools were not known in time"))
		case err := <-refusals:
			return failure.From(err, about)
		case <-store:
		}
	}
	select {
	case err := <-refusals: // whoever may list them, and not watch
		return failure.From(err, about)
	default:
		return nil
	}
}

// reflect keeps a store as the cluster is, until ctx ends.
func reflect(ctx context.Context, kind string, from *cache.ListWatch, store cache.ReflectorStore) {
	silence := klog.Logger{} // what it has to say, it says again and again
	cache.NewReflectorWithOptions(from, nil, store, cache.ReflectorOptions{
		Name: "claim", TypeDescription: kind, Logger: &silence,
	}).RunWithContext(ctx)
}

// listWatch lists and watches what is selected.
func listWatch(api dynamic.ResourceInterface, selection metav1.ListOptions) *cache.ListWatch {
	selected := func(options metav1.ListOptions) metav1.ListOptions {
		options.LabelSelector, options.FieldSelector = selection.LabelSelector, selection.FieldSelector
		return options
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return api.List(ctx, selected(options))
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			if resumed := options.SendInitialEvents == nil; resumed {
				if err := connection.CanResume(ctx, api, selected(metav1.ListOptions{Limit: 1}), options.ResourceVersion); err != nil {
					return nil, err
				}
			}
			return api.Watch(ctx, selected(options))
		},
	}
}

// needed tells refusals of the first time that one may not list or watch.
func needed(of *cache.ListWatch, refusals chan<- error) *cache.ListWatch {
	tell := func(err error) {
		if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
			select {
			case refusals <- err:
			default:
			}
		}
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			list, err := of.ListWithContextFunc(ctx, options)
			tell(err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			events, err := of.WatchFuncWithContext(ctx, options)
			tell(err)
			return events, err
		},
	}
}

// optional has those who may not list and watch see nothing: see Cordoned.
func optional(of *cache.ListWatch) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			list, err := of.ListWithContextFunc(ctx, options)
			if apierrors.IsForbidden(err) {
				return &unstructured.UnstructuredList{Object: map[string]any{"metadata": map[string]any{"resourceVersion": "1"}}}, nil
			}
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			events, err := of.WatchFuncWithContext(ctx, options)
			if listed := options.SendInitialEvents == nil; listed && apierrors.IsForbidden(err) {
				return watch.NewFake(), nil // nothing ever happens
			}
			return events, err // a watch that was to begin with a list: the reflector lists then
		},
	}
}

// watcher knows the pools by watches.
type watcher struct {
	pods     *podStore
	cordoned *nameStore
}

func (w watcher) look(_ context.Context, poolID string) (sighting, error) {
	return sighting{pods: w.pods.of(poolID), cordoned: w.cordoned.all()}, nil
}

func (w watcher) took(object *unstructured.Unstructured) { w.pods.wrote(object) }

func (w watcher) tried(pods ...*pool.Pod) { w.pods.tried(pods) }

func (w watcher) stands(pod *pool.Pod) bool { return w.pods.stands(pod) }
