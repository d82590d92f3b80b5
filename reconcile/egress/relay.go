package egress

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
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

	cancel context.CancelFunc
	ended  atomic.Bool
}

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
	limits  Limits
	metrics *metrics

	mutex sync.Mutex // protects what follows
	live  map[*flow]struct{}
	// greeting counts the connections, by client, that have not said yet what
	// they want; they count as well.
	held  map[netip.Addr]int
	total int
	idle  chan struct{} // closed while there is none
}

func newFlows(limits Limits, metrics *metrics) *flows {
	idle := make(chan struct{})
	close(idle)
	return &flows{limits: limits, metrics: metrics, live: map[*flow]struct{}{}, held: map[netip.Addr]int{}, idle: idle}
}

// hold takes a place for a connection of the client; false where there is none
// left. free must be called when it is over.
func (f *flows) hold(client netip.Addr) (free func(), ok bool) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.total >= f.limits.Connections || f.held[client] >= f.limits.PerSandbox {
		return nil, false
	}
	if f.total == 0 {
		f.idle = make(chan struct{})
	}
	f.total++
	f.held[client]++
	f.metrics.active.Set(float64(f.total))
	return sync.OnceFunc(func() {
		f.mutex.Lock()
		defer f.mutex.Unlock()
		f.total--
		if f.held[client]--; f.held[client] == 0 {
			delete(f.held, client)
		}
		if f.total == 0 {
			close(f.idle)
		}
		f.metrics.active.Set(float64(f.total))
	}), true
}

// add takes note of a flow until remove is called.
func (f *flows) add(ctx context.Context, added *flow) (flowing context.Context, remove func()) {
	flowing, added.cancel = context.WithCancel(ctx)
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.live[added] = struct{}{}
	return flowing, func() {
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

// drain waits until there is no connection, or ctx ends.
func (f *flows) drain(ctx context.Context) {
	f.mutex.Lock()
	idle := f.idle
	f.mutex.Unlock()
	select {
	case <-ctx.Done():
	case <-idle:
	}
}

func (f *flows) cutAll() {
	for _, one := range f.all() {
		one.cut()
	}
}

// chunk is how much is copied before a look at the clock. Between two TCP
// connections the kernel moves the bytes (splice), and no buffer of ours holds
// any.
const chunk = 1 << 20

// relay copies both ways until both sides are done, ctx ends, or nothing is
// said for too long. What was read of the client already goes first.
func relay(ctx context.Context, client, server net.Conn, first []byte, idle time.Duration, count *metrics) error {
	stop := context.AfterFunc(ctx, func() { // unblocks both, at once
		_ = client.Close()
		_ = server.Close()
	})
	defer stop()
	if len(first) > 0 {
		if _, err := server.Write(first); err != nil {
			return err
		}
		count.bytes.WithLabelValues("out").Add(float64(len(first)))
	}
	var last atomic.Int64 // when something was said, on either side
	last.Store(time.Now().UnixNano())
	var both sync.WaitGroup
	var errs [2]error
	both.Go(func() { errs[0] = copyOneWay(server, client, idle, &last, count, "out") })
	both.Go(func() { errs[1] = copyOneWay(client, server, idle, &last, count, "in") })
	both.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(errs[:]...)
}

// copyOneWay copies until the source ends, which it tells the destination by
// closing that half. Any error ends both directions.
func copyOneWay(to, from net.Conn, idle time.Duration, last *atomic.Int64, count *metrics, direction string) error {
	fail := func(err error) error {
		_ = to.Close()
		_ = from.Close()
		return err
	}
	for {
		if err := from.SetReadDeadline(time.Now().Add(idle)); err != nil {
			return fail(err)
		}
		n, err := io.Copy(to, &io.LimitedReader{R: from, N: chunk})
		count.bytes.WithLabelValues(direction).Add(float64(n))
		if n > 0 {
			last.Store(time.Now().UnixNano())
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if time.Since(time.Unix(0, last.Load())) >= idle {
				return fail(errIdle)
			}
		case err != nil:
			return fail(err)
		case n < chunk: // the end
			if half, ok := to.(interface{ CloseWrite() error }); ok {
				return half.CloseWrite()
			}
			return fail(nil)
		}
	}
}

var errIdle = errors.New("nothing was said for too long")
