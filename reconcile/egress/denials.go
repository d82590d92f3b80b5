package egress

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/agentpane/sandboxctl/reconcile/audit"
)

const (
	// repeatAfter is how long the same refusal is not recorded again: a client
	// that tries for ever must not fill the log. How often it tried is recorded
	// then.
	repeatAfter = 30 * time.Second
	// distinct is how many refusals that differ are recorded of one client within
	// that time: the names are the client's to choose. The others are counted.
	distinct = 64
	// clientsKept bounds of how many clients that is kept.
	clientsKept = 4096
)

// beyond is the reason of the record that counts what was not recorded.
const beyond = "there are too many refusals to record each"

// denials records what is refused.
type denials struct {
	recorder *audit.Recorder

	mutex   sync.Mutex // protects what follows
	clients map[audit.About]*clientDenials
	rest    int // those of clients beyond the bound
}

// clientDenials are those of one client: how often each was repeated since it was
// recorded, and how many others there were.
type clientDenials struct {
	repeated map[audit.Denial]int
	rest     int
}

func newDenials(recorder *audit.Recorder) *denials {
	return &denials{recorder: recorder, clients: map[audit.About]*clientDenials{}}
}

// first counts a refusal, and tells whether it is to be recorded now.
func (d *denials) first(about audit.About, denial audit.Denial) bool {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	client := d.clients[about]
	if client == nil {
		if len(d.clients) >= clientsKept {
			d.rest++
			return false
		}
		client = &clientDenials{repeated: map[audit.Denial]int{}}
		d.clients[about] = client
	}
	if _, known := client.repeated[denial]; known {
		client.repeated[denial]++
		return false
	}
	if len(client.repeated) >= distinct {
		client.rest++
		return false
	}
	client.repeated[denial] = 0
	return true
}

// take returns records of all that was counted since it was last called, and
// forgets what has not happened again.
func (d *denials) take() map[audit.About][]audit.Denial {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	records := map[audit.About][]audit.Denial{}
	add := func(about audit.About, denial audit.Denial, times int) {
		denial.Repeated = times
		records[about] = append(records[about], denial)
	}
	for about, client := range d.clients {
		for denial, times := range client.repeated {
			if times == 0 {
				delete(client.repeated, denial)
				continue
			}
			add(about, denial, times)
			client.repeated[denial] = 0
		}
		if client.rest > 0 {
			add(about, audit.Denial{Reason: beyond}, client.rest)
			client.rest = 0
		}
		if len(client.repeated) == 0 {
			delete(d.clients, about)
		}
	}
	if d.rest > 0 {
		add(audit.About{}, audit.Denial{Reason: beyond}, d.rest)
		d.rest = 0
	}
	return records
}

// recordCounted records what was counted, again and again until ctx ends.
func (g *Gateway) recordCounted(ctx context.Context) error {
	tick := time.NewTicker(repeatAfter)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			g.flushDenials()
		}
	}
}

func (g *Gateway) flushDenials() {
	for about, denials := range g.denials.take() {
		for _, denial := range denials {
			g.recordDenial(about, denial)
		}
	}
}

func (g *Gateway) recordDenial(about audit.About, denial audit.Denial) {
	if err := g.denials.recorder.Denied(about, denial); err != nil {
		g.metrics.failures.WithLabelValues("audit").Inc()
	}
}

// deny records that a client was refused. A name is kept to what fits into one.
func (g *Gateway) deny(client netip.Addr, host string, port int, protocol string, reason verdict) {
	g.metrics.denied.WithLabelValues(protocol, string(reason)).Inc()
	identity, _ := g.Who(client)
	about := identity.About
	if about.ResourceName == "" {
		about.ResourceName = client.String()
	}
	denial := audit.Denial{Host: host[:min(len(host), 253)], Port: port, Protocol: protocol, Reason: string(reason)}
	if g.denials.first(about, denial) {
		g.recordDenial(about, denial)
	}
}

func (d *denials) cut(f *flow, reason verdict) {
	_ = d.recorder.Cut(f.identity.About, audit.Denial{Host: f.host, Port: f.port, Protocol: f.protocol, Reason: string(reason)}) // it is cut in any case
}
