package egress

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/agentpane/sandboxctl/schema"
)

// refusal is why a connection was not made; its text may be told to the client.
type refusal struct {
	verdict verdict
	cause   error
}

func (r *refusal) Error() string {
	if r.cause != nil {
		return fmt.Sprintf("%s: %v", r.verdict, r.cause)
	}
	return string(r.verdict)
}

// dialTimeout bounds the way to a host: all of its addresses that are tried.
const (
	dialTimeout = 15 * time.Second
	// attempt bounds one address, attempts how many are tried: a name with
	// hundreds of addresses is not to be tried out.
	attempt  = 4 * time.Second
	attempts = 4
)

// dial resolves the flow's host and connects to one of its addresses: the name's,
// and never one that the client has chosen.
func (g *Gateway) dial(f *flow, rule schema.EgressRule) *refusal {
	ctx, cancel := context.WithTimeout(f.ctx, dialTimeout)
	defer cancel()
	begun := time.Now()
	addresses, err := g.options.Resolver.Lookup(ctx, f.host)
	if err != nil {
		return &refusal{unresolvable, err}
	}
	good := reachable(addresses, rule.Internal, g.public, g.private)
	if len(good) == 0 {
		return &refusal{notInternet, fmt.Errorf("%s is %s", f.host, addresses[0])}
	}
	start := g.metrics.turn()
	var errs []error
	for i := range min(attempts, len(good)) {
		to := good[(start+i)%len(good)]
		attempted, cancel := context.WithTimeout(ctx, attempt)
		conn, err := g.options.Dialer(attempted, "tcp", netip.AddrPortFrom(to, uint16(f.port)).String())
		cancel()
		if err == nil {
			g.metrics.dials.Observe(time.Since(begun).Seconds())
			f.server = conn
			f.address.Store(&to)
			return nil
		}
		errs = append(errs, err)
	}
	return &refusal{unreachable, errs[0]}
}

// greet begins a client's connection: it gets a place, and a time within which
// to say what it wants.
func (g *Gateway) greet(conn net.Conn, protocol string, port int) (client netip.Addr, free func(), ok bool) {
	if client, free, ok = g.admit(conn, protocol, port); ok {
		_ = conn.SetDeadline(time.Now().Add(g.options.Limits.Greeting)) // of a TCP connection: it has deadlines
	}
	return client, free, ok
}

// handleTLS forwards a TLS connection to the host that its ClientHello names.
func (g *Gateway) handleTLS(ctx context.Context, conn net.Conn) {
	defer reset(conn)
	const protocol, port = "tls", 443
	client, free, ok := g.greet(conn, protocol, port)
	if !ok {
		return
	}
	defer free()
	name, read, err := readClientHello(conn)
	host, isName := schema.CanonicalHost(name)
	switch {
	case err != nil:
		g.deny(client, "", port, protocol, malformed)
	case name == "":
		g.deny(client, "", port, protocol, noName)
	case !isName:
		g.deny(client, name, port, protocol, notAName)
	default:
		g.forward(ctx, conn, client, host, port, protocol, read)
	}
}

// forward connects a client that may have it to the host, and copies both ways.
func (g *Gateway) forward(ctx context.Context, conn net.Conn, client netip.Addr, host string, port int, protocol string, read []byte) {
	f, done, no := g.open(ctx, client, host, port, protocol)
	if no != nil {
		return
	}
	defer done()
	_ = conn.SetDeadline(time.Time{})
	if relay(f, conn, read, g.options.Limits.look(), g.metrics) == nil {
		_ = conn.Close() // in good order, where the caller would reset it
	}
}

// open connects to the host where the client may have it; what it refuses is
// recorded. done must be called when the connection is over.
func (g *Gateway) open(ctx context.Context, client netip.Addr, host string, port int, protocol string) (f *flow, done func(), no *refusal) {
	if _, v := g.Authorize(client, host, port); v != allowed {
		g.deny(client, host, port, protocol, v)
		return nil, nil, &refusal{verdict: v}
	}
	identity, _ := g.Who(client)
	f = &flow{client: client, identity: identity, host: host, port: port, protocol: protocol}
	remove := g.flows.add(ctx, f)
	if no = g.connect(f); no != nil {
		remove()
		g.deny(client, host, port, protocol, no.verdict)
		return nil, nil, no
	}
	f.note()
	g.metrics.connections.WithLabelValues(protocol).Inc()
	return f, func() { remove(); _ = f.server.Close() }, nil
}

// connect connects the flow to its host, as it is allowed by now: the list may have
// shrunk before the flow was there to be found, and before it was known where it
// leads.
func (g *Gateway) connect(f *flow) *refusal {
	rule, v := g.Authorize(f.client, f.host, f.port)
	if v != allowed {
		return &refusal{verdict: v}
	}
	if no := g.dial(f, rule); no != nil {
		return no
	}
	if v := g.permits(f); v != allowed {
		_ = f.server.Close()
		return &refusal{verdict: v}
	}
	return nil
}

// permits tells whether the flow may be, to the address that it leads to.
func (g *Gateway) permits(f *flow) verdict {
	rule, v := g.Authorize(f.client, f.host, f.port)
	address := f.address.Load()
	if v == allowed && address != nil && len(reachable([]netip.Addr{*address}, rule.Internal, g.public, g.private)) == 0 {
		return notInternet
	}
	return v
}

// reset ends a connection so that the client knows at once that it failed: a
// close in good order would look like an empty answer.
func reset(conn net.Conn) {
	if tcp, ok := conn.(interface{ SetLinger(seconds int) error }); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// peekTLS looks at what a client says on a connection to a host: where it is a
// TLS ClientHello, it must be for that host. It returns what it has read. A client
// that says nothing within its time is not let through: it could name another
// later.
func peekTLS(conn net.Conn, host string) ([]byte, verdict) {
	const handshake = 0x16
	first := make([]byte, 1)
	if _, err := io.ReadFull(conn, first); errors.Is(err, io.EOF) {
		return nil, allowed // it will say nothing
	} else if err != nil {
		return nil, noName
	}
	if first[0] != handshake {
		return first, allowed
	}
	name, read, err := readClientHello(io.MultiReader(bytes.NewReader(first), conn))
	if err != nil {
		return read, malformed
	}
	if name == "" {
		return read, noName
	}
	if asked, _ := schema.CanonicalHost(name); asked != host {
		return read, mismatch
	}
	return read, allowed
}
