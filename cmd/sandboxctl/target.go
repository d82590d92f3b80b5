package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/agentpane/sandboxctl/reconcile"
	"github.com/agentpane/sandboxctl/reconcile/connection"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/schema"
	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

// target is a cluster that a fleet is to be reconciled with.
type target struct {
	cluster    *connection.Cluster
	reconciler *reconcile.Reconciler
}

// target connects to the cluster that the flags, or else the fleet's file, say.
func (f *connectFlags) target(env environment, fleet *schema.Fleet) (target, error) {
	cluster, err := f.connect(env, fleet.Cluster)
	if err != nil {
		return target{}, err
	}
	reconciler, err := reconcile.New(cluster.Config, env.now, holderName(env), reconcile.WithAudit(f.recorder), reconcile.WithEnforcement(),
		reconcile.WithLockTimeout(f.lockTimeout, func(refusal error) {
			fmt.Fprintf(env.stderr, "  waiting up to %s (--lock-timeout): %s\n", f.lockTimeout, printable(refusal.Error()))
		}))
	return target{cluster, reconciler}, err
}

// sighting is a cluster and what it shows of a fleet.
type sighting struct {
	target
	seen reconcile.Observation
	err  error // why it shows nothing
}

// observe connects and has a look.
func (f *connectFlags) observe(ctx context.Context, env environment, fleet *schema.Fleet) (s sighting) {
	if s.target, s.err = f.target(env, fleet); s.err == nil {
		s.seen, s.err = s.reconciler.Observe(ctx, fleet)
	}
	return s
}

// plan says what applying the fleet would change.
func (s sighting) plan(ctx context.Context, fleet rendered, options reconcile.Options) (planned, error) {
	if s.err != nil {
		return planned{}, s.err
	}
	p, err := s.reconciler.PlanFrom(ctx, fleet.Fleet, s.seen, fleet.objects, options)
	if isNew := len(s.seen.Live) == 0 && s.seen.Namespace != nil; isNew && err == nil {
		var neighbours []plan.Kept
		neighbours, err = s.reconciler.Neighbours(ctx, fleet.Fleet)
		p.Kept = append(p.Kept, neighbours...)
	}
	return planned{Plan: p, context: s.cluster.Context, position: fleet.position, suspended: suspensionOf(fleet.Fleet, s.seen)}, err
}

// loadObserving loads the fleets, and has a look at their clusters meanwhile: of
// a large fleet, the one takes about as long as the other.
func (f *connectFlags) loadObserving(ctx context.Context, env environment, files *fleetFlags) ([]rendered, []*sighting, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group sync.WaitGroup
	var sightings []*sighting
	fleets, err := loadAs(files, env, func(fleet *schema.Fleet) (rendered, diagnostic.List) {
		s := new(sighting)
		sightings = append(sightings, s)
		group.Go(func() { *s = f.observe(ctx, env, fleet) })
		return renderedOf(fleet)
	})
	if err != nil {
		cancel()
	}
	group.Wait()
	return fleets, sightings, err
}

// holderName is how others are told of this process when it holds a lock.
func holderName(env environment) string {
	user, _ := env.lookupEnv("USER")
	host, _ := os.Hostname() // a lock without a host is better than none
	return fmt.Sprintf("%s@%s (process %d)", cmp.Or(user, "somebody"), cmp.Or(host, "an unknown host"), os.Getpid())
}
