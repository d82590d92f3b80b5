package egress

import (
	"net/netip"
	"sync"
	"time"

	"github.com/agentpane/sandboxctl/reconcile/audit"
)

// repeatAfter is how long the same refusal is not recorded again: a client that
// tries for ever must not fill the log. How often it tried is recorded then.
const repeatAfter = 30 * time.Second

// denialsKept bounds what is remembered of them; beyond it, it begins anew.
const denialsKept = 4096

// denials records what is refused.
type denials struct {
	recorder *audit.Recorder
	now      func() time.Time

	mutex sync.Mutex // protects seen
	seen  map[denialKey]*denialCount
}

type denialKey struct {
	client   netip.Addr
	host     string
	port     int
	protocol string
	reason   verdict
}

type denialCount struct {
	last     time.Time
	repeated int
}

func newDenials(recorder *audit.Recorder, now func() time.Time) *denials {
	return &denials{recorder: recorder, now: now, seen: map[denialKey]*denialCount{}}
}

// due tells whether a refusal is to be recorded now, and how often it happened
// since it last was.
func (d *denials) due(key denialKey) (repeated int, due bool) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if len(d.seen) >= denialsKept {
		clear(d.seen)
	}
	known := d.seen[key]
	if known == nil {
		d.seen[key] = &denialCount{last: d.now()}
		return 0, true
	}
	known.repeated++
	if d.now().Sub(known.last) < repeatAfter {
		return 0, false
	}
	repeated, known.repeated, known.last = known.repeated, 0, d.now()
	return repeated, true
}

// deny records that a client was refused. A name is kept to what fits into one.
func (g *Gateway) deny(client netip.Addr, host string, port int, protocol string, reason verdict) {
	g.metrics.denied.WithLabelValues(protocol, string(reason)).Inc()
	host = host[:min(len(host), 253)]
	repeated, due := g.denials.due(denialKey{client, host, port, protocol, reason})
	if !due {
		return
	}
	identity, _ := g.Who(client)
	about := identity.About
	if about.ResourceName == "" {
		about.ResourceName = client.String()
	}
	if err := g.denials.recorder.Denied(about, audit.Denial{Host: host, Port: port, Protocol: protocol, Reason: string(reason), Repeated: repeated}); err != nil {
		g.metrics.failures.WithLabelValues("audit").Inc()
	}
}

func (d *denials) cut(f *flow, reason verdict) {
	_ = d.recorder.Cut(f.identity.About, audit.Denial{Host: f.host, Port: f.port, Protocol: f.protocol, Reason: string(reason)}) // it is cut in any case
}
