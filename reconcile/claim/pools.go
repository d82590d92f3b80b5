package claim

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/agentpane/sandboxctl/reconcile/audit"
	"github.com/agentpane/sandboxctl/reconcile/pool"
	"github.com/agentpane/sandboxctl/render"
)

// Pool is a pool as the cluster shows it.
type Pool struct {
	pool.Input
}

// Metrics are the original's.
func (p Pool) Metrics() pool.Metrics { return pool.MetricsOf(p.Input) }

// Claims are the sandboxes that programs have out of the pool.
func (p Pool) Claims() []Sandbox {
	var claims []Sandbox
	for _, pod := range p.Pods {
		if pod.Claim != nil && !pod.Claim.Until.IsZero() && !pod.Going {
			claimed := sandboxOf(pod)
			claimed.Pool = p.Pool.Name
			claims = append(claims, claimed)
		}
	}
	return claims
}

// Pools reads the fleet's pools, by three requests at once.
func (c *Client) Pools(ctx context.Context) ([]Pool, error) {
	var states map[string]pool.State
	var seen sighting
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		seen, err = lister{c}.look(groupCtx, "")
		return err
	})
	group.Go(func() (err error) {
		states, err = c.States(groupCtx)
		return err
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	pods := map[string][]pool.Pod{}
	for _, pod := range seen.pods {
		pods[pod.Pool] = append(pods[pod.Pool], *pod)
	}
	var pools []Pool
	for _, p := range c.pools {
		pools = append(pools, Pool{pool.Input{
			Pool: p, Pods: pods[p.Pod.GetLabels()[render.PoolIDLabel]], Cordoned: seen.cordoned, State: states[p.Name], Now: c.now(),
		}})
	}
	return pools, nil
}

// Discover returns the pods of a pool, by its name and its label, whose level is
// about to change, and records how many they are.
func (c *Client) Discover(ctx context.Context, name, poolID string) ([]*pool.Pod, error) {
	seen, err := c.source.look(ctx, poolID)
	if err != nil {
		return nil, err
	}
	about := audit.About{Namespace: c.fleet.Namespace, ResourceName: name}
	allocated := 0
	for _, pod := range seen.pods {
		if pod.Claim != nil {
			allocated++
		}
	}
	return seen.pods, c.audit.Discovery(about, seen.warm(), allocated)
}

// concurrency is how many requests are under way at once, as in package
// reconcile.
const concurrency = 16

// Prewarm adds n warm pods to a pool, as far as its max allows, and returns how
// many it has added. They stay for keep, though they may be more than the pool
// is to have.
func (c *Client) Prewarm(ctx context.Context, name string, n int, keep time.Duration) (int, error) {
	p, err := c.pool(name)
	if err != nil {
		return 0, err
	}
	found, err := c.Discover(ctx, name, p.Pod.GetLabels()[render.PoolIDLabel])
	if err != nil {
		return 0, err
	}
	slots := freeSlots(order{starts: &p}, sighting{pods: found})
	until := c.now().Add(keep)
	var mutex sync.Mutex // protects added
	added := 0
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(concurrency)
	for _, slot := range slots[:min(n, len(slots))] {
		group.Go(func() error {
			_, err := c.Add(ctx, p, slot, until)
			if errors.Is(err, errTaken) {
				return nil
			}
			mutex.Lock()
			defer mutex.Unlock()
			if err == nil {
				added++
			}
			return err
		})
	}
	err = group.Wait()
	about := audit.About{Namespace: c.fleet.Namespace, ResourceName: name}
	return added, errors.Join(err, c.audit.Prewarm(about, n, added, len(found)+added, err))
}
