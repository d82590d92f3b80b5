package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/agentpane/sandboxctl/reconcile/filewatch"
	"github.com/agentpane/sandboxctl/reconcile/watch"
	"github.com/agentpane/sandboxctl/schema"
	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

// keeper has a watcher for each fleet of the files.
type keeper struct {
	env     environment
	options watchOptions
	log     *watchLog
	metrics *watchMetrics

	running sync.WaitGroup
	mutex   sync.Mutex // protects what follows
	kept    map[schema.Identity]*keptFleet
	failed  []error
}

// keptFleet is a fleet that is being watched.
type keptFleet struct {
	place   string // see placeOf
	cilium  bool   // Cilium's policies are watched, if only to remove them
	stop    context.CancelFunc
	latest  rendered
	watcher *watch.Watcher // nil while another process is the leader
	settled bool
}

func newKeeper(env environment, options watchOptions, log *watchLog) *keeper {
	return &keeper{env: env, options: options, log: log, metrics: newWatchMetrics(), kept: map[schema.Identity]*keptFleet{}}
}

// standTime is how long a file that no longer has all that it had must stay as it
// is before that is believed: the first half of one that is written slowly looks
// just so.
const standTime = 2 * time.Second

// follow keeps the fleets, and takes over what the files say whenever they have
// changed, until ctx ends. Where they cannot be read, the last good ones stay in
// force.
func (k *keeper) follow(ctx context.Context, fleets []rendered, files *filewatch.Watcher) error {
	if err := k.update(ctx, fleets); err != nil {
		return err
	}
	var stands <-chan time.Time
	for {
		stood := false
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-files.Changed(): // also once at the start: the files may be others than those that were read
		case <-stands:
			stood = true
		}
		stands = nil
		var found diagnostic.List
		same := files.Read(func() { fleets, found = readAs(k.options.files.files, strings.NewReader(""), renderedOf) })
		k.log.findings(found)
		if found.HasErrors() {
			continue
		}
		if !(stood && same) && k.hold(fleets) {
			stands = time.After(standTime)
		}
		if err := k.update(ctx, fleets); err != nil {
			k.log.problem(err)
		}
	}
}

// hold puts what is in force in the place of each fleet that no longer has all of
// that, and tells whether there is one.
func (k *keeper) hold(fleets []rendered) (held bool) {
	named := identities(fleets)
	for i, fleet := range fleets {
		if kept := k.before(fleet.Fleet, named); kept != nil && fleet.Omits(kept.latest.Fleet) {
			fleets[i], held = kept.latest, true
		}
	}
	return held
}

func identities(fleets []rendered) map[schema.Identity]bool {
	named := map[schema.Identity]bool{}
	for _, fleet := range fleets {
		named[fleet.Identity()] = true
	}
	return named
}

// update takes over what the files say now. A fleet that they no longer name
// stays as it is: its last good file stays in force.
func (k *keeper) update(ctx context.Context, fleets []rendered) error {
	named := identities(fleets)
	var errs []error
	for _, fleet := range fleets {
		kept := k.before(fleet.Fleet, named)
		if kept == nil || !kept.fits(fleet.Fleet) {
			errs = append(errs, k.start(ctx, fleet, kept))
			continue
		}
		k.mutex.Lock()
		held := kept.latest.Fleet == fleet.Fleet // nothing of it is new
		kept.latest = fleet
		watcher := kept.watcher
		k.mutex.Unlock()
		if watcher != nil && !held {
			watcher.Update(fleet.Fleet, fleet.objects)
		}
	}
	k.mutex.Lock()
	defer k.mutex.Unlock()
	for key := range k.kept {
		if !named[key] {
			k.log.note(key.Name, "no file names it any more; it stays as its last file said (sandboxctl destroy removes it)")
		}
	}
	return errors.Join(errs...)
}

// before is what is kept of a fleet, where it was on another cluster included:
// one of its name that no file names any more.
func (k *keeper) before(fleet *schema.Fleet, named map[schema.Identity]bool) *keptFleet {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	if kept := k.kept[fleet.Identity()]; kept != nil {
		return kept
	}
	for key, kept := range k.kept {
		if key.Name == fleet.Name && !named[key] {
			return kept
		}
	}
	return nil
}

// placeOf is what of a fleet its watcher cannot change: its cluster, its
// namespace, and whether nodes matter to it.
func placeOf(fleet *schema.Fleet) string {
	return fmt.Sprintf("%q %q %q %v", fleet.Cluster.Kubeconfig, fleet.Cluster.Context, fleet.Namespace, len(fleet.Pools) > 0)
}

func newKept(fleet *schema.Fleet) *keptFleet {
	return &keptFleet{place: placeOf(fleet), cilium: fleet.Egress.Mode == schema.Cilium}
}

// fits tells whether the fleet's watcher can take over what the file says now.
func (f *keptFleet) fits(fleet *schema.Fleet) bool {
	return f.place == placeOf(fleet) && (f.cilium || fleet.Egress.Mode != schema.Cilium)
}

// start begins to watch a fleet, and ends to watch what it was before, if
// anything: that stays in force where the cluster cannot be found.
func (k *keeper) start(ctx context.Context, fleet rendered, before *keptFleet) error {
	target, err := k.options.connect.target(k.env, fleet.Fleet)
	if err != nil {
		return err
	}
	if before != nil {
		k.log.note(fleet.Name, "it is watched anew; what it has in another namespace or cluster is left as it is")
		before.stop()
	}
	ctx, stop := context.WithCancel(quietly(ctx))
	kept := newKept(fleet.Fleet)
	kept.stop, kept.latest = stop, fleet
	k.mutex.Lock()
	maps.DeleteFunc(k.kept, func(_ schema.Identity, other *keptFleet) bool { return other == before })
	k.kept[fleet.Identity()] = kept
	k.mutex.Unlock()
	recorder := newRecorder(ctx, target.cluster, k.options.events)
	tell := func(event watch.Event) {
		k.log.event(event)
		k.metrics.event(event)
		recorder.event(event)
		if event.Type == watch.Settled {
			k.mutex.Lock()
			kept.settled = true
			k.mutex.Unlock()
		}
	}
	k.running.Go(func() {
		defer stop()
		defer recorder.close()
		err := k.options.leader.lead(ctx, target.cluster, holderName(k.env), fleet.Fleet, k.log, func(ctx context.Context) error {
			k.mutex.Lock()
			latest := kept.latest
			k.mutex.Unlock()
			watcher, err := watch.New(target.reconciler, target.cluster.Client, latest.Fleet, latest.objects, k.options.resync, k.env.now, tell)
			if err != nil {
				return err
			}
			k.mutex.Lock()
			kept.watcher = watcher
			now := kept.latest
			k.mutex.Unlock()
			if now.Fleet != latest.Fleet { // the file was saved meanwhile
				watcher.Update(now.Fleet, now.objects)
			}
			err = watcher.Run(ctx)
			k.mutex.Lock()
			kept.watcher = nil
			k.mutex.Unlock()
			return err
		})
		if err != nil {
			if ctx.Err() == nil { // else it is told at the end, which is near
				k.log.problem(err)
			}
			k.mutex.Lock()
			k.failed = append(k.failed, err)
			k.mutex.Unlock()
		}
	})
	return nil
}

// stopped waits for all watchers, whose context has ended, and returns what
// ending them came to.
func (k *keeper) stopped() error {
	k.running.Wait()
	k.mutex.Lock()
	defer k.mutex.Unlock()
	return errors.Join(k.failed...)
}

// ready tells whether every fleet was once as its file says, or is another
// process's to keep.
func (k *keeper) ready() bool {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	for _, kept := range k.kept {
		if kept.watcher != nil && !kept.settled {
			return false
		}
	}
	return len(k.kept) > 0
}
