package main

import (
	"cmp"
	"context"
	"fmt"
	"os"

	"github.com/agentpane/sandboxctl/reconcile"
	"github.com/agentpane/sandboxctl/reconcile/connection"
	"github.com/agentpane/sandboxctl/schema"
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
	reconciler, err := reconcile.New(cluster.Config, env.now, holderName(env), reconcile.WithAudit(f.recorder), reconcile.WithEnforcement())
	return target{cluster, reconciler}, err
}

// plan connects, and says what applying the fleet would change.
func (f *connectFlags) plan(ctx context.Context, env environment, fleet rendered, options reconcile.Options) (target, planned, error) {
	t, err := f.target(env, fleet.Fleet)
	if err != nil {
		return target{}, planned{}, err
	}
	seen, err := t.reconciler.Observe(ctx, fleet.Fleet)
	if err != nil {
		return target{}, planned{}, err
	}
	p, err := t.reconciler.PlanFrom(ctx, fleet.Fleet, seen, fleet.objects, options)
	return t, planned{Plan: p, context: t.cluster.Context, position: fleet.position, suspended: suspensionOf(fleet.Fleet, seen)}, err
}

// holderName is how others are told of this process when it holds a lock.
func holderName(env environment) string {
	user, _ := env.lookupEnv("USER")
	host, _ := os.Hostname() // a lock without a host is better than none
	return fmt.Sprintf("%s@%s (process %d)", cmp.Or(user, "somebody"), cmp.Or(host, "an unknown host"), os.Getpid())
}
