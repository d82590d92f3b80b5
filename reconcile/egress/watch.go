package egress

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/agentpane/sandboxctl/reconcile/audit"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// Watch keeps the state as the cluster has it until ctx ends: the pods of the
// fleet's sandboxes, its Services, and its ConfigMap. While the API server cannot
// be reached, what was known last goes on to count: a pod's address cannot become
// another's without it. That does not make the gateway unready, either: all of a
// cluster's would be at once. A server that answers, and refuses, does: see heard.
// The error is for a client that cannot be set up, and nothing is tried again for.
func (s *State) Watch(ctx context.Context, config *rest.Config, namespace string, fleet *schema.Fleet) error {
	client, err := coreClient(config)
	if err != nil {
		return err
	}
	list := func(resource string, field fields.Selector, label labels.Selector) cache.ListerWatcher {
		return s.noted(resource, cache.NewFilteredListWatchFromClient(client, resource, namespace, func(options *metav1.ListOptions) {
			options.FieldSelector, options.LabelSelector = field.String(), label.String()
		}))
	}
	name := render.GatewayService(fleet)
	pods := inform(list("pods", fields.Everything(), labels.SelectorFromSet(labels.Set{
		render.FleetLabel: fleet.Name, render.SandboxLabel: "true",
	})), keepIdentity, s.seePod, s.losePod)
	services := inform(list("services", fields.Everything(), labels.SelectorFromSet(labels.Set{
		render.FleetLabel: fleet.Name, render.ComponentLabel: render.GatewayComponent,
	})), nil, s.seeService, func(service *corev1.Service) { s.SetService(service.Name, netip.Addr{}) })
	configs := inform(list("configmaps", fields.OneTermEqualSelector(metav1.ObjectNameField, name), labels.Everything()),
		nil, s.seeConfig, func(*corev1.ConfigMap) { s.SetNothing(fleet.Name) })
	// What client-go says of failures would stand among the records of the audit log.
	quiet := klog.NewContext(ctx, klog.Logger{})
	var running sync.WaitGroup
	for _, informer := range []cache.Controller{pods, services, configs} {
		running.Go(func() { informer.RunWithContext(quiet) })
	}
	if cache.WaitForCacheSync(ctx.Done(), pods.HasSynced) {
		s.SetComplete()
	}
	running.Wait()
	return nil
}

// noted lists and watches as from does, and takes note of what becomes of it.
// After a list there always is a watch: that is what must succeed.
func (s *State) noted(resource string, from *cache.ListWatch) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			list, err := from.ListWithContext(ctx, options)
			if err != nil && ctx.Err() == nil {
				s.heard(resource, err)
			}
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			events, err := from.WatchWithContext(ctx, options)
			if ctx.Err() == nil {
				s.heard(resource, err)
			}
			return events, err
		},
	}
}

// patience is how long the API server may refuse to tell the gateway of something:
// one that starts does not know at once who may what.
const patience = time.Minute

// refusing is that the API server refuses to tell of something.
type refusing struct {
	since time.Time
	err   error // once it has refused for long
}

// heard takes note of what became of a request to the API server. For whoever is
// refused for long, what it knows gets older and older, though others see the
// cluster change: addresses do change hands then.
func (s *State) heard(resource string, err error) {
	if err != nil {
		s.failures.WithLabelValues("watch").Inc()
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	is, refused := s.refusing[resource]
	switch {
	case apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err):
		if !refused {
			is.since = s.now()
		}
		if s.now().Sub(is.since) > patience {
			is.err = err
		}
		s.refusing[resource] = is
	case apierrors.IsInvalid(err): // it knows no watch that begins with a list
	case err == nil || is.err == nil: // or it cannot be reached, after which it may have to start
		delete(s.refusing, resource)
	}
}

// refusal is what the API server refuses to tell of, and why; empty where it does not.
func (s *State) refusal() string {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	for _, resource := range slices.Sorted(maps.Keys(s.refusing)) {
		if err := s.refusing[resource].err; err != nil {
			return fmt.Sprintf("%s: %v", resource, err)
		}
	}
	return ""
}

func coreClient(config *rest.Config) (*rest.RESTClient, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	config = rest.CopyConfig(config)
	config.APIPath, config.GroupVersion = "/api", &corev1.SchemeGroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("setting up the client: %w", err)
	}
	return client, nil
}

// inform calls see with each object as it is and as it changes, and lose with
// each that has gone. What is kept of each is what keep makes of it; nil keeps all.
func inform[T any](list cache.ListerWatcher, keep cache.TransformFunc, see, lose func(*T)) cache.Controller {
	_, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: list, ObjectType: any(new(T)).(runtime.Object), Transform: keep,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(object any) { see(object.(*T)) },
			UpdateFunc: func(_, object any) { see(object.(*T)) },
			DeleteFunc: func(object any) {
				if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
					object = unknown.Obj
				}
				if gone, ok := object.(*T); ok {
					lose(gone)
				}
			},
		},
	})
	return controller
}

// keepIdentity keeps of a pod what seePod looks at: there may be
// thousands.
func keepIdentity(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion, Labels: pod.Labels,
		},
		Spec:   corev1.PodSpec{HostNetwork: pod.Spec.HostNetwork},
		Status: corev1.PodStatus{Phase: pod.Status.Phase, PodIPs: pod.Status.PodIPs},
	}, nil
}

// seePod takes note of a pod. One that has ended has no address any more; one
// in the node's network shares the node's, and is nobody.
func (s *State) seePod(pod *corev1.Pod) {
	var addresses []netip.Addr
	ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	if !ended && !pod.Spec.HostNetwork {
		for _, ip := range pod.Status.PodIPs {
			if address, err := netip.ParseAddr(ip.IP); err == nil {
				addresses = append(addresses, address.Unmap())
			}
		}
	}
	s.SetPod(string(pod.UID), Identity{
		About: audit.About{
			Namespace: pod.Namespace, ResourceName: pod.Name,
			SandboxID: pod.Labels[render.SandboxIDLabel], ProjectID: pod.Labels[render.ProjectIDLabel],
		},
		List: pod.Labels[render.EgressLabel],
	}, addresses...)
}

func (s *State) losePod(pod *corev1.Pod) { s.SetPod(string(pod.UID), Identity{}) }

func (s *State) seeService(service *corev1.Service) {
	address, err := netip.ParseAddr(service.Spec.ClusterIP)
	if err != nil {
		address = netip.Addr{}
	}
	s.SetService(service.Name, address)
}

// seeConfig takes over what is allowed. What cannot be read changes nothing: a
// list that shrank by a mistake would cut what it should not, and one that grew
// would allow it.
func (s *State) seeConfig(configMap *corev1.ConfigMap) {
	var config render.GatewayConfig
	if err := json.Unmarshal([]byte(configMap.Data[render.GatewayConfigKey]), &config); err != nil {
		s.failures.WithLabelValues("config").Inc()
		return
	}
	s.SetConfig(config)
}
