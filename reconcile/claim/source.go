package claim

import (
	"context"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/pool"
)

// sighting is what is known of a pool.
type sighting struct {
	pods     []*pool.Pod
	cordoned map[string]bool
}

// source is where a client learns of pools, and is told what it has done to
// them.
type source interface {
	look(ctx context.Context, poolID string) (sighting, error)
	// took: a pod is as this object shows now, by an own write.
	took(*unstructured.Unstructured)
	// tried: these pods were not to be had.
	tried(...*pool.Pod)
	// stands tells whether a pod is still as it was seen, as far as is known.
	stands(*pool.Pod) bool
}

// lister asks the cluster each time.
type lister struct{ client *Client }

func (l lister) look(ctx context.Context, poolID string) (sighting, error) {
	var seen sighting
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		seen.pods, err = l.client.Pods(ctx, poolID)
		return err
	})
	group.Go(func() (err error) {
		seen.cordoned, err = Cordoned(ctx, l.client.api)
		return err
	})
	return seen, group.Wait()
}

func (lister) took(*unstructured.Unstructured) {}
func (lister) tried(...*pool.Pod)              {}
func (lister) stands(*pool.Pod) bool           { return true }

// Pods returns the pods of a pool, by its label; of all of the fleet's pools
// where that is empty.
func (c *Client) Pods(ctx context.Context, poolID string) ([]*pool.Pod, error) {
	list, err := c.pods().List(ctx, c.poolSelector(poolID))
	if err != nil {
		if err = failure.From(err, c.about("pods", "")); failure.CodeOf(err) != failure.APIError {
			return nil, err
		}
		return nil, failure.New(failure.WarmPoolDiscoveryFailed, c.about("pods", ""), "the pods of the pools could not be listed: %v", err).Because(err)
	}
	var pods []*pool.Pod
	for i := range list.Items {
		list.Items[i].SetGroupVersionKind(podKind)
		if pod, ok := pool.Read(&list.Items[i]); ok {
			pods = append(pods, &pod)
		}
	}
	return pods, nil
}

var (
	nodes    = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
	services = schema.GroupVersionResource{Version: "v1", Resource: "services"}
)

// CordonedNodes selects the nodes that take no pods any more, of which there are
// few: no others are read.
const CordonedNodes = "spec.unschedulable=true"

// Cordoned returns the nodes that take no pods any more, by one LIST. Whoever
// may not read nodes sees none: what kubectl drain does to pods they see all the
// same, as soon as it is done.
func Cordoned(ctx context.Context, api dynamic.Interface) (map[string]bool, error) {
	list, err := api.Resource(nodes).List(ctx, metav1.ListOptions{FieldSelector: CordonedNodes})
	if apierrors.IsForbidden(err) {
		return nil, nil
	}
	if err != nil {
		return nil, failure.From(err, failure.Object{Kind: "nodes"})
	}
	cordoned := map[string]bool{}
	for i := range list.Items {
		cordoned[list.Items[i].GetName()] = true
	}
	return cordoned, nil
}
