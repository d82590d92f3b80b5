package claim

import (
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/agentpane/sandboxctl/reconcile/pool"
	"github.com/agentpane/sandboxctl/render"
)

// podStore keeps of each pod no more than matters. It is what the watch says,
// with what this client has written itself, which the watch may say later.
type podStore struct {
	now    func() time.Time
	mutex  sync.Mutex // protects byPool
	byPool map[string]map[string]*knownPod
	once   sync.Once
	synced chan struct{}
}

// knownPod is a pod as it was seen last; it is never changed, as claims look at
// it. One that was not to be had as it is known is as good as Going, but for its
// slot: it is not tried again until it changes.
type knownPod struct {
	pool.Pod
	// written is when this client wrote it so; zero for what the watch has said.
	written time.Time
}

// is tells whether the pod is known as it was then.
func (k *knownPod) is(pod *pool.Pod) bool {
	return k != nil && k.UID == pod.UID && k.ResourceVersion == pod.ResourceVersion
}

// WriteMemory is how long an own write counts more than what a watch shows. A
// watch is late by milliseconds, or by seconds on a server that is overloaded;
// after longer than this the write was lost, as when etcd was restored from a
// backup.
const WriteMemory = 30 * time.Second

func newPodStore(now func() time.Time) *podStore {
	return &podStore{now: now, byPool: map[string]map[string]*knownPod{}, synced: make(chan struct{})}
}

// of are the pods of a pool.
func (s *podStore) of(poolID string) []*pool.Pod {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	pods := make([]*pool.Pod, 0, len(s.byPool[poolID]))
	for _, known := range s.byPool[poolID] {
		pods = append(pods, &known.Pod)
	}
	return pods
}

// wrote takes a pod in as this client has just written it.
func (s *podStore) wrote(object *unstructured.Unstructured) { s.put(object, s.now()) }

// put takes a pod in, unless it is known as it was later.
func (s *podStore) put(object any, written time.Time) {
	pod, ok := readPod(object)
	if !ok {
		return
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.keep(s.later(s.byPool[pod.Pool][pod.Name], &knownPod{Pod: pod, written: written}))
}

func readPod(object any) (pool.Pod, bool) {
	read, ok := object.(*unstructured.Unstructured)
	if !ok {
		return pool.Pod{}, false
	}
	return pool.Read(read)
}

// later is which of two to go by: what is known of the pod, or what is seen now.
// What comes later shows it as it is later, but for an own write. Another pod of
// its name has nothing to do with it.
func (s *podStore) later(known, seen *knownPod) *knownPod {
	if known == nil || known.UID != seen.UID {
		return seen
	}
	order, err := resourceversion.CompareResourceVersion(seen.ResourceVersion, known.ResourceVersion)
	if err == nil && order < 0 && s.now().Sub(known.written) < WriteMemory {
		return known
	}
	seen.Going = seen.Going || known.Going && known.is(&seen.Pod)
	return seen
}

func (s *podStore) keep(known *knownPod) {
	if s.byPool[known.Pool] == nil {
		s.byPool[known.Pool] = map[string]*knownPod{}
	}
	s.byPool[known.Pool][known.Name] = known
}

// tried notes that pods were not to be had as they were.
func (s *podStore) tried(pods []*pool.Pod) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, pod := range pods {
		if known := s.byPool[pod.Pool][pod.Name]; known.is(pod) {
			gone := *known
			gone.Going = true
			s.keep(&gone)
		}
	}
}

// stands tells whether a pod is known as it was, and may be tried.
func (s *podStore) stands(pod *pool.Pod) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	known := s.byPool[pod.Pool][pod.Name]
	return known.is(pod) && !known.Going
}

// Add, Update, Delete, Replace and Resync make it a store for a reflector.
func (s *podStore) Add(object any) error    { s.put(object, time.Time{}); return nil }
func (s *podStore) Update(object any) error { s.put(object, time.Time{}); return nil }
func (s *podStore) Resync() error           { return nil }

func (s *podStore) Delete(object any) error {
	read, ok := object.(*unstructured.Unstructured)
	if !ok {
		return nil
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	pods := s.byPool[read.GetLabels()[render.PoolIDLabel]]
	if known := pods[read.GetName()]; known != nil && known.UID == read.GetUID() {
		delete(pods, read.GetName())
	}
	return nil
}

func (s *podStore) Replace(objects []any, _ string) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	before := s.byPool
	s.byPool = map[string]map[string]*knownPod{}
	for _, object := range objects {
		if pod, ok := readPod(object); ok {
			s.keep(s.later(before[pod.Pool][pod.Name], &knownPod{Pod: pod}))
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

func newNameStore() *nameStore {
	return &nameStore{names: map[string]bool{}, synced: make(chan struct{})}
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
