package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordination "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"

	"github.com/agentpane/sandboxctl/reconcile/connection"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// leaderFlags are the flags for several processes that watch the same fleet.
type leaderFlags struct {
	elect     bool
	namespace string
}

func (f *leaderFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.elect, "leader-elect", false, "watch only while this process holds the fleet's Lease, for several replicas")
	cmd.Flags().StringVar(&f.namespace, "leader-elect-namespace", "", "where that Lease is (default the fleet's namespace)")
}

// The terms of Kubernetes' own controllers (component-base's defaults).
const (
	leaseDuration = 15 * time.Second
	leaseRenewal  = 10 * time.Second
	leaseRetry    = 2 * time.Second
)

// lead runs what is to be done by one process only, as often as this process
// becomes the leader, until ctx ends. It returns when that has returned. One that
// fails is told of and run again: another process may lead meanwhile.
func (f *leaderFlags) lead(ctx context.Context, cluster *connection.Cluster, identity string, fleet *schema.Fleet, log *watchLog, run func(context.Context) error) error {
	if !f.elect {
		return run(ctx)
	}
	client, err := coordination.NewForConfig(cluster.Config)
	if err != nil {
		return fmt.Errorf("setting up the leader election: %w", err)
	}
	namespace := f.namespace
	if namespace == "" {
		namespace = fleet.Namespace
	}
	lock := &lease{Interface: &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: namespace, Name: render.WatchLease(fleet)},
		Client:     client,
		LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
	}}
	for ctx.Err() == nil {
		var failed error
		if err := f.term(ctx, lock, fleet, log, func(leading context.Context) { failed = run(leading) }); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return failed
		}
		if failed != nil {
			log.problem(failed)
		}
	}
	return nil
}

// lease is a Lease that is given back by its holder only. client-go's elector,
// when it has lost the Lease because the server could not be reached, gives it
// back as soon as that can be reached, also where another process holds it by
// then.
type lease struct {
	resourcelock.Interface
	holder string // as it was last read
}

// Get notes who holds the Lease.
func (l *lease) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	record, raw, err := l.Interface.Get(ctx)
	if err == nil {
		l.holder = record.HolderIdentity
	}
	return record, raw, err
}

// Update refuses to give back what is another's.
func (l *lease) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	if record.HolderIdentity == "" && l.holder != l.Identity() {
		return fmt.Errorf("the Lease is %s's by now", l.holder)
	}
	return l.Interface.Update(ctx, record)
}

// term runs what is to be done once this process is the leader, until it is no
// more. The Lease is given back only after that has returned. The error is that
// of setting up the election.
func (f *leaderFlags) term(ctx context.Context, lock resourcelock.Interface, fleet *schema.Fleet, log *watchLog, run func(context.Context)) error {
	started := make(chan context.Context)
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, LeaseDuration: leaseDuration, RenewDeadline: leaseRenewal, RetryPeriod: leaseRetry, ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) {
				select {
				case started <- ctx:
				case <-ctx.Done():
				}
			},
			OnStoppedLeading: func() {},
			OnNewLeader:      func(leader string) { log.note(fleet.Name, "its leader is "+leader) },
		},
	})
	if err != nil {
		return fmt.Errorf("setting up the leader election: %w", err)
	}
	election, end := context.WithCancel(context.WithoutCancel(ctx))
	over := make(chan struct{})
	go func() {
		defer close(over)
		elector.Run(election)
	}()
	defer func() {
		end()
		<-over
	}()
	select {
	case <-ctx.Done():
		return nil
	case <-over:
		return nil
	case leading := <-started:
		leading, cancel := context.WithCancel(leading)
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		run(leading)
		return nil
	}
}

// quietly keeps client-go's own logging out of what this program prints: what
// matters of it comes as events.
func quietly(ctx context.Context) context.Context { return klog.NewContext(ctx, klog.Logger{}) }
