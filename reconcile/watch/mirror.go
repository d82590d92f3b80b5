package watch

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"

	"github.com/agentpane/sandboxctl/reconcile"
	"github.com/agentpane/sandboxctl/reconcile/claim"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// mirror is what the cluster shows of a fleet: the informers' caches, with what
// this process has written itself laid over them until they show it. So a cache
// that is late never makes the watcher act twice. What it returns is shared,
// and not to be changed.
type mirror struct {
	fleet     *schema.Fleet
	informers map[string]cache.SharedIndexInformer // by kind
	// cordoned has the nodes that take no pods any more; nil for a fleet that
	// has no pools.
	cordoned cache.SharedIndexInformer
	now      func() time.Time

	mutex sync.Mutex // protects what follows
	own   map[plan.Ref]ownWrite
	// unseen are the kinds that cannot be watched at present: their caches are
	// late for as long as that lasts.
	unseen map[string]bool
}

// ownWrite is something that this process wrote; object is nil where it told
// the object of that uid to go.
type ownWrite struct {
	object *unstructured.Unstructured
	uid    types.UID
	at     time.Time
}

const (
	scopeIndex  = "scope"
	egressIndex = "egress"
	poolIndex   = "pool"
)

// newMirror makes the informers of the fleet's kinds. changed is told of each
// object that may be another than before, and of the one that went; reached of
// what came of each attempt to watch a kind.
func newMirror(client dynamic.Interface, fleet *schema.Fleet, now func() time.Time, changed func(before, after *unstructured.Unstructured), reached func(kind string, err error)) (*mirror, error) {
	m := &mirror{fleet: fleet, informers: map[string]cache.SharedIndexInformer{}, own: map[plan.Ref]ownWrite{}, unseen: map[string]bool{}, now: now}
	attempted := func(kind string, err error) {
		m.attempted(kind, err)
		reached(kind, err)
	}
	selector := metav1.ListOptions{LabelSelector: render.PartOfLabel + "=" + render.ApplySetID(fleet)}
	for _, kind := range render.KindsOf(fleet) {
		options := selector
		if kind.Kind.Kind == "Namespace" { // also one that is not the fleet's own
			options = metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, fleet.Namespace).String()}
		}
		informer, err := m.newInformer(client, kind, options, changed, attempted)
		if err != nil {
			return nil, err
		}
		m.informers[kind.Kind.Kind] = informer
	}
	var err error
	if len(fleet.Pools) > 0 {
		node := render.Kind{Kind: corev1.SchemeGroupVersion.WithKind("Node"), Resource: corev1.SchemeGroupVersion.WithResource("nodes")}
		options := metav1.ListOptions{FieldSelector: claim.CordonedNodes}
		m.cordoned, err = m.newInformer(client, node, options, changed, func(string, error) {}) // who may not see nodes sees none
	}
	return m, err
}

// run runs the informers until ctx ends, and waits for them.
func (m *mirror) run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	for _, informer := range m.informers {
		running.Go(func() { informer.RunWithContext(ctx) })
	}
	if m.cordoned != nil {
		running.Go(func() { m.cordoned.RunWithContext(ctx) })
	}
}

// synced waits until every informer has its first list; false when ctx ended.
func (m *mirror) synced(ctx context.Context) bool {
	var checks []cache.InformerSynced
	for _, informer := range m.informers {
		checks = append(checks, informer.HasSynced)
	}
	return cache.WaitForCacheSync(ctx.Done(), checks...)
}

// Wrote and Deleting make the mirror a reconcile.Writes.
func (m *mirror) Wrote(object *unstructured.Unstructured) {
	object = object.DeepCopy()
	trim(object)
	m.note(plan.RefOf(object), ownWrite{object: object, uid: object.GetUID(), at: m.now()})
}

// Deleting is told that an object was told to go.
func (m *mirror) Deleting(ref plan.Ref, uid types.UID) {
	m.note(ref, ownWrite{uid: uid, at: m.now()})
}

func (m *mirror) note(ref plan.Ref, write ownWrite) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.own[ref] = write
}

// attempted notes what came of an attempt to watch a kind. What was written while
// it could not be watched counts from when it can.
func (m *mirror) attempted(kind string, err error) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if err != nil {
		m.unseen[kind] = true
		return
	}
	if !m.unseen[kind] {
		return
	}
	delete(m.unseen, kind)
	for ref, write := range m.own {
		if ref.Kind == kind {
			write.at = m.now()
			m.own[ref] = write
		}
	}
}

// isUnseen tells whether a kind cannot be watched at present.
func (m *mirror) isUnseen(kind string) bool {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return m.unseen[kind]
}

// gone forgets what was written to an object that went.
func (m *mirror) gone(object *unstructured.Unstructured) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if ref := plan.RefOf(object); m.own[ref].uid == object.GetUID() {
		delete(m.own, ref)
	}
}

// scope is what the cluster shows of one scope.
func (m *mirror) scope(scope string) reconcile.Observation {
	seen := reconcile.Observation{Live: map[plan.Ref]*unstructured.Unstructured{}}
	for _, informer := range m.informers {
		objects, err := informer.GetIndexer().ByIndex(scopeIndex, scope)
		if err != nil {
			panic(err) // there is no such index
		}
		for _, object := range objects {
			object := object.(*unstructured.Unstructured)
			seen.Live[plan.RefOf(object)] = object
		}
	}
	m.overlay(seen.Live, func(object *unstructured.Unstructured) bool { return scopeOf(object) == scope })
	namespace := plan.Ref{GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Namespace"), Name: m.fleet.Namespace}
	seen.Namespace, seen.Gateway = m.object(namespace), m.object(reconcile.GatewayRef(m.fleet))
	if seen.Namespace != nil && seen.Namespace.GetLabels()[render.PartOfLabel] != render.ApplySetID(m.fleet) {
		delete(seen.Live, namespace) // it is watched all the same
	}
	if scope == poolsScope && m.cordoned != nil {
		seen.Pooled, seen.Cordoned = m.pooled(), map[string]bool{}
		for _, name := range m.cordoned.GetIndexer().ListKeys() {
			seen.Cordoned[name] = true
		}
	}
	return seen
}

// object is what the cluster shows of one object; nil where it has none.
func (m *mirror) object(ref plan.Ref) *unstructured.Unstructured {
	live := map[plan.Ref]*unstructured.Unstructured{}
	if cached := m.cached(ref); cached != nil {
		live[ref] = cached
	}
	m.overlay(live, func(object *unstructured.Unstructured) bool { return plan.RefOf(object) == ref })
	return live[ref]
}

// pooled are the pods of all pools, claimed or not, and what is kept of them
// beside.
func (m *mirror) pooled() map[plan.Ref]*unstructured.Unstructured {
	pooled := map[plan.Ref]*unstructured.Unstructured{}
	for _, informer := range m.informers {
		objects, err := informer.GetIndexer().ByIndex(poolIndex, poolIndex)
		if err != nil {
			panic(err) // there is no such index
		}
		for _, object := range objects {
			pooled[plan.RefOf(object.(*unstructured.Unstructured))] = object.(*unstructured.Unstructured)
		}
	}
	m.overlay(pooled, m.isPooled)
	return pooled
}

// inhabitants are all of the fleet's pods and volumes.
func (m *mirror) inhabitants() map[plan.Ref]*unstructured.Unstructured {
	inhabitants := map[plan.Ref]*unstructured.Unstructured{}
	for _, kind := range []string{"Pod", "PersistentVolumeClaim"} {
		for _, object := range m.informers[kind].GetStore().List() {
			object := object.(*unstructured.Unstructured)
			inhabitants[plan.RefOf(object)] = object
		}
	}
	return inhabitants
}

// overlay lays the own writes over what the caches show of the members, and
// forgets those that the caches show.
func (m *mirror) overlay(live map[plan.Ref]*unstructured.Unstructured, member func(*unstructured.Unstructured) bool) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	for ref, write := range m.own {
		cached := m.cached(ref)
		if m.now().Sub(write.at) > claim.WriteMemory && !m.unseen[ref.Kind] || shows(cached, write) {
			delete(m.own, ref)
			continue
		}
		switch {
		case write.object == nil && live[ref] != nil:
			going := cached.DeepCopy()
			at := metav1.NewTime(write.at)
			going.SetDeletionTimestamp(&at)
			live[ref] = going
		case write.object != nil && member(write.object):
			live[ref] = write.object
		}
	}
}

// cached is the object as the caches have it; nil where they have none.
func (m *mirror) cached(ref plan.Ref) *unstructured.Unstructured {
	informer := m.informers[ref.Kind]
	if informer == nil {
		return nil
	}
	object, found, err := informer.GetIndexer().GetByKey(cache.NewObjectName(ref.Namespace, ref.Name).String())
	if err != nil || !found {
		return nil
	}
	return object.(*unstructured.Unstructured)
}

// shows tells whether a cache has caught up with a write.
func shows(cached *unstructured.Unstructured, write ownWrite) bool {
	if write.object == nil {
		return cached == nil || cached.GetUID() != write.uid || cached.GetDeletionTimestamp() != nil
	}
	if cached == nil {
		return false // an object that went since is forgotten by gone
	}
	order, err := resourceversion.CompareResourceVersion(cached.GetResourceVersion(), write.object.GetResourceVersion())
	return err != nil || order >= 0
}

// allowlistInUse tells whether a pod is under the allowlist of that id.
func (m *mirror) allowlistInUse(id string) bool {
	pods, err := m.informers["Pod"].GetIndexer().ByIndex(egressIndex, id)
	if err != nil {
		panic(err) // there is no such index
	}
	live := map[plan.Ref]*unstructured.Unstructured{}
	for _, pod := range pods {
		pod := pod.(*unstructured.Unstructured)
		live[plan.RefOf(pod)] = pod
	}
	m.overlay(live, func(object *unstructured.Unstructured) bool { return object.GetKind() == "Pod" })
	for _, pod := range live {
		if pod.GetLabels()[render.EgressLabel] == id {
			return true
		}
	}
	return false
}

// scopes are all scopes of which the caches have anything.
func (m *mirror) scopes() []string {
	seen := map[string]bool{}
	var scopes []string
	for _, informer := range m.informers {
		for _, scope := range informer.GetIndexer().ListIndexFuncValues(scopeIndex) {
			if !seen[scope] {
				seen[scope] = true
				scopes = append(scopes, scope)
			}
		}
	}
	return scopes
}

func indexScope(object any) ([]string, error) {
	return []string{scopeOf(object.(*unstructured.Unstructured))}, nil
}

func (m *mirror) indexPooled(object any) ([]string, error) {
	if m.isPooled(object.(*unstructured.Unstructured)) {
		return []string{poolIndex}, nil
	}
	return nil, nil
}

// isPooled tells whether a pool's level depends on the object.
func (m *mirror) isPooled(object *unstructured.Unstructured) bool {
	return object.GetKind() == "Pod" && object.GetLabels()[render.WarmPoolLabel] == "true" ||
		object.GetKind() == "ConfigMap" && object.GetName() == render.PoolStateName(m.fleet.Name)
}

func indexEgress(object any) ([]string, error) {
	if id := object.(*unstructured.Unstructured).GetLabels()[render.EgressLabel]; id != "" {
		return []string{id}, nil
	}
	return nil, nil
}
