package egress

import (
	"context"
	"net/netip"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// places bound how much of something there is at once, of one client and in all.
type places struct {
	all, each int
	gauge     prometheus.Gauge // how many are taken

	mutex sync.Mutex // protects what follows
	taken int
	held  map[netip.Addr]int
	idle  chan struct{} // closed while none is taken
}

func newPlaces(all, each int, gauge prometheus.Gauge) *places {
	idle := make(chan struct{})
	close(idle)
	return &places{all: all, each: each, gauge: gauge, held: map[netip.Addr]int{}, idle: idle}
}

// hold takes a place for the client; false where there is none left. free must be
// called when it is over.
func (p *places) hold(client netip.Addr) (free func(), ok bool) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.taken >= p.all || p.held[client] >= p.each {
		return nil, false
	}
	if p.taken == 0 {
		p.idle = make(chan struct{})
	}
	p.taken++
	p.held[client]++
	p.gauge.Set(float64(p.taken))
	return sync.OnceFunc(func() { p.free(client) }), true
}

func (p *places) free(client netip.Addr) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.taken--
	if p.held[client]--; p.held[client] == 0 {
		delete(p.held, client)
	}
	if p.taken == 0 {
		close(p.idle)
	}
	p.gauge.Set(float64(p.taken))
}

// drain waits until no place is taken, or ctx ends.
func (p *places) drain(ctx context.Context) {
	p.mutex.Lock()
	idle := p.idle
	p.mutex.Unlock()
	select {
	case <-ctx.Done():
	case <-idle:
	}
}
