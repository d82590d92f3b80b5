package egress

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// flow is one connection, or one HTTP request, of a sandbox to a host.
type flow struct {
	client   netip.Addr
	identity Identity
	host     string
	port     int
	protocol string
	server   net.Conn                   // the connection to the host, once it is made
	address  atomic.Pointer[netip.Addr] // where that leads: nil before it is made

	ctx    context.Context // ends when the flow is cut
	cancel context.CancelFunc
	ended  atomic.Bool

	begun time.Time
	said  atomic.Int64 // when something was said last, in either direction: nanoseconds since it has begun
}

// note takes note that something was said.
func (f *flow) note() { f.said.Store(int64(time.Since(f.begun))) }

// quiet is how long nothing was said.
func (f *flow) quiet() time.Duration { return time.Since(f.begun) - time.Duration(f.said.Load()) }

// cut ends the flow, and tells whether it was there to be ended.
func (f *flow) cut() bool {
	first := f.ended.CompareAndSwap(false, true)
	if first {
		f.cancel()
	}
	return first
}

// flows are the flows that there are.
type flows struct {
	mutex sync.Mutex // protects live
	live  map[*flow]struct{}
}

func newFlows() *flows { return &flows{live: map[*flow]struct{}{}} }

// add takes note of a flow until remove is called.
func (f *flows) add(ctx context.Context, added *flow) (remove func()) {
	added.ctx, added.cancel = context.WithCancel(ctx)
	added.begun = time.Now()
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.live[added] = struct{}{}
	return func() {
		added.ended.Store(true)
		added.cancel()
		f.mutex.Lock()
		defer f.mutex.Unlock()
		delete(f.live, added)
	}
}

func (f *flows) all() []*flow {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	var all []*flow
	for one := range f.live {
		all = append(all, one)
	}
	return all
}

func (f *flows) cutAll() {
	for _, one := range f.all() {
		one.cut()
	}
}

// cutIdle cuts the flows on which nothing is said for too long, in neither
// direction, until ctx ends.
func (f *flows) cutIdle(ctx context.Context, limits Limits) error {
	look := time.NewTicker(limits.look())
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
		}
		for _, one := range f.all() {
			if one.quiet() >= limits.Idle+limits.look() { // a relay may tell that late
				one.cut()
			}
		}
	}
}
