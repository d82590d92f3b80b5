package claim

import (
	"context"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/agentpane/sandboxctl/reconcile/pool"
	"github.com/agentpane/sandboxctl/render"
)

// Start has the client know the fleet's pools by a watch from now on: a claim
// then asks for nothing before it writes. It returns when what there is is
// known. Wait must be called after ctx has ended; it returns when nothing of the
// client runs any more.
func (c *Client) Start(ctx context.Context) (wait func(), err error) {
	pods := &podStore{byPool: map[string]map[string]pool.Pod{}, stale: map[types.UID]string{}, synced: make(chan struct{})}
	cordoned := &nameStore{names: map[string]bool{}, synced: make(chan struct{})}
	var running sync.WaitGroup
	running.Go(func() { reflect(ctx, c.pods(), c.poolSelector(""), podKind.Kind, pods) })
	running.Go(func() {
		reflect(ctx, c.api.Resource(nodes), metav1.ListOptions{FieldSelector: CordonedNodes}, "Node", cordoned)
	})
	for _, synced := range []chan struct{}{pods.synced, cordoned.synced} {
		select {
		case <-ctx.Done():
			running.Wait()
			return nil, context.Cause(ctx)
		case <-synced:
		}
	}
	c.source = watcher{pods, cordoned}
	return running.Wait, nil
}

// reflect keeps a store as the cluster is, until ctx ends.
func reflect(ctx context.Context, api dynamic.ResourceInterface, selection metav1.ListOptions, kind string, store cache.ReflectorStore) {
	selected := func(options metav1.ListOptions) metav1.ListOptions {
		options.LabelSelector, options.FieldSelector = selection.LabelSelector, selection.FieldSelector
		return options
	}
	silence := klog.Logger{} // what it has to say, it says again and again
	cache.NewReflectorWithOptions(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			list, err := api.List(ctx, selected(options))
			if kind == "Node" && apierrors.IsForbidden(err) { // see Cordoned
				return &unstructured.UnstructuredList{Object: map[string]any{"metadata": map[string]any{"resourceVersion": "1"}}}, nil
			}
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			events, err := api.Watch(ctx, selected(options))
			if kind == "Node" && apierrors.IsForbidden(err) {
				return watch.NewFake(), nil // nothing ever happens
			}
			return events, err
		},
	}, nil, store, cache.ReflectorOptions{Name: "claim", TypeDescription: kind, Logger: &silence}).RunWithContext(ctx)
}

// watcher knows the pools by watches.
type watcher struct {
	pods     *podStore
	cordoned *nameStore
}

func (w watcher) look(_ context.Context, poolID string) (sighting, error) {
	return sighting{pods: w.pods.of(poolID), cordoned: w.cordoned.all()}, nil
}

func (w watcher) took(object *unstructured.Unstructured) { w.pods.put(object) }

func (w watcher) tried(pods ...pool.Pod) {
	w.pods.mutex.Lock()
	defer w.pods.mutex.Unlock()
	for _, pod := range pods {
		w.pods.stale[pod.UID] = pod.ResourceVersion
	}
}

// podStore keeps of each pod no more than matters. It is what the watch says,
// with what this client has written itself, which the watch may say later.
type podStore struct {
	mutex  sync.Mutex // protects what follows
	byPool map[string]map[string]pool.Pod
	// stale are the pods that were not to be had, at the resourceVersion that
	// they had: until another is seen, they are not tried again.
	stale  map[types.UID]string
	once   sync.Once
	synced chan struct{}
}

// of are the pods of a pool that are worth to be tried.
func (s *podStore) of(poolID string) []pool.Pod {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	pods := make([]pool.Pod, 0, len(s.byPool[poolID]))
	for _, pod := range s.byPool[poolID] {
		if s.stale[pod.UID] == pod.ResourceVersion {
			pod.Going = true // as good as gone, but for its slot
		}
		pods = append(pods, pod)
	}
	return pods
}

// put takes a pod in, unless it is known as it was later.
func (s *podStore) put(object any) {
	read, ok := object.(*unstructured.Unstructured)
	if !ok {
		return
	}
	pod, ok := pool.Read(read)
	if !ok {
		return
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.putLocked(pod)
}

func (s *podStore) putLocked(pod pool.Pod) {
	pods := s.byPool[pod.Pool]
	if pods == nil {
		pods = map[string]pool.Pod{}
		s.byPool[pod.Pool] = pods
	}
	known, ok := pods[pod.Name]
	if order, err := resourceversion.CompareResourceVersion(pod.ResourceVersion, known.ResourceVersion); ok && err == nil && order < 0 {
		return
	}
	if known.UID != pod.UID || s.stale[pod.UID] != pod.ResourceVersion {
		delete(s.stale, known.UID)
	}
	pods[pod.Name] = pod
}

// Add, Update, Delete, Replace and Resync make it a store for a reflector.
func (s *podStore) Add(object any) error    { s.put(object); return nil }
func (s *podStore) Update(object any) error { s.put(object); return nil }
func (s *podStore) Resync() error           { return nil }

func (s *podStore) Delete(object any) error {
	read, ok := object.(*unstructured.Unstructured)
	if !ok {
		return nil
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	pods := s.byPool[read.GetLabels()[render.PoolIDLabel]]
	if known, ok := pods[read.GetName()]; ok && known.UID == read.GetUID() {
		delete(pods, read.GetName())
		delete(s.stale, known.UID)
	}
	return nil
}

func (s *podStore) Replace(objects []any, _ string) error {
	fresh := map[string]map[string]bool{}
	for _, object := range objects {
		s.put(object)
		if read, ok := object.(*unstructured.Unstructured); ok {
			id := read.GetLabels()[render.PoolIDLabel]
			if fresh[id] == nil {
				fresh[id] = map[string]bool{}
			}
			fresh[id][read.GetName()] = true
		}
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for id, pods := range s.byPool {
		for name := range pods {
			if !fresh[id][name] {
				delete(pods, name)
			}
		}
	}
	s.once.Do(func() { close(s.synced) })
	return nil
}

// nameStore keeps names only.
type nameStore struct {
	mutex  sync.Mutex // protects names
	names  map[string]bool
	once   sync.Once
	synced chan struct{}
}

func (s *nameStore) all() map[string]bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	names := make(map[string]bool, len(s.names))
	for name := range s.names {
		names[name] = true
	}
	return names
}

func (s *nameStore) set(object any, there bool) {
	named, ok := object.(metav1.Object)
	if !ok {
		return
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if there {
		s.names[named.GetName()] = true
	} else {
		delete(s.names, named.GetName())
	}
}

// Add, Update, Delete, Replace and Resync make it a store for a reflector.
func (s *nameStore) Add(object any) error    { s.set(object, true); return nil }
func (s *nameStore) Update(object any) error { s.set(object, true); return nil }
func (s *nameStore) Delete(object any) error { s.set(object, false); return nil }
func (s *nameStore) Resync() error           { return nil }

func (s *nameStore) Replace(objects []any, _ string) error {
	s.mutex.Lock()
	clear(s.names)
	s.mutex.Unlock()
	for _, object := range objects {
		s.set(object, true)
	}
	s.once.Do(func() { close(s.synced) })
	return nil
}
