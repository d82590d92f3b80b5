// Package egress is the egress gateway: the one thing that a fleet's sandboxes
// reach, and through it the hosts that their allowlists name. It answers their
// DNS with its own address, learns from TLS (SNI), HTTP (Host) or CONNECT which
// host is meant, resolves that name itself, refuses addresses that are not the
// internet's, and forwards. Who asks is known by the address of the pod; an
// address that is no sandbox's gets nothing.
//
// The package never decrypts anything, never dials an address that a client
// chose, and never changes anything in the cluster: it watches its fleet's pods,
// Services and the one ConfigMap that says what is allowed.
package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/agentpane/sandboxctl/reconcile/audit"
	"github.com/agentpane/sandboxctl/render"
)

// Options are what a gateway is made of.
type Options struct {
	// Address is where it listens; the zero value is every address of the pod.
	Address netip.Addr
	// Resolver resolves names; see NewResolver.
	Resolver *Resolver
	// Dialer makes the connections; it is given addresses only.
	Dialer func(ctx context.Context, network, address string) (net.Conn, error)
	// Audit takes what is refused; nil for nobody.
	Audit *audit.Recorder
	// Metrics is where the gateway's metrics are registered.
	Metrics prometheus.Registerer
	Now     func() time.Time
	// Grace is how long connections have to end by themselves when the gateway
	// is told to.
	Grace  time.Duration
	Limits Limits
}

// Limits bound what clients can use up.
type Limits struct {
	// Connections is how many there may be in all, PerSandbox of one sandbox.
	Connections, PerSandbox int
	// Idle is how long nothing may be said on a connection, Greeting how long a
	// client has to say which host it wants.
	Idle, Greeting time.Duration
}

// look is how often it is looked for connections on which nothing is said.
func (l Limits) look() time.Duration { return l.Idle / 4 }

// DefaultLimits are generous for one sandbox, which can use up some 300 of a
// gateway's 512 MiB by them at the very worst. For all connections they bound what
// ordinary ones take: several sandboxes that mean it can use up more.
func DefaultLimits() Limits {
	return Limits{Connections: 8192, PerSandbox: 1024, Idle: time.Hour, Greeting: 10 * time.Second}
}

// Gateway is a gateway. Its state is set from outside: see State and Watch.
type Gateway struct {
	*State
	options Options
	metrics *metrics
	denials *denials
	flows   *flows

	public, private render.Addresses // the latter for hosts that are internal

	connections *places // those of clients
	questions   *places // those that are passed on

	listening chan struct{} // closed when it listens
	draining  chan struct{} // closed when no new connection is to come
}

// New returns a gateway that knows of no sandbox yet.
func New(options Options) *Gateway {
	metrics := newMetrics(options.Metrics)
	g := &Gateway{
		State: newState(options.Now, metrics.failures), options: options, metrics: metrics,
		denials: newDenials(options.Audit), flows: newFlows(),
		public: render.PublicAddresses(), private: render.InternalAddresses(),
		listening: make(chan struct{}), draining: make(chan struct{}),
	}
	g.connections = newPlaces(options.Limits.Connections, options.Limits.PerSandbox, g.metrics.active)
	g.questions = newPlaces(passedOn, passedOnEach, g.metrics.asking)
	return g
}

// Run serves until ctx ends, then takes no new connection and waits for those
// that there are, for as long as its grace. It waits for all that it started, and
// closes the resolver.
func (g *Gateway) Run(ctx context.Context) error {
	defer g.options.Resolver.Close()
	ports, err := g.openPorts(ctx)
	if err != nil {
		return err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	// Connections outlive ctx, by the grace.
	serving, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	dns := g.newDNS(groupCtx, ports.questions, g.admitting(ports.tcp[render.DNSPort], "dns", 53))
	defer dns.close()
	group.Go(func() error { return dns.serve(groupCtx) })
	var open []*listening
	for port, handle := range map[int32]func(context.Context, net.Conn){
		render.TLSPort: g.handleTLS, render.HelloPort: handleHello, render.CanaryPort: handleHello,
	} {
		open = append(open, startListening(serving, ports.tcp[port], handle))
	}
	web := g.startHTTP(groupCtx, serving, g.admitting(ports.tcp[render.HTTPPort], "http", 80), g.admitting(ports.tcp[render.ProxyPort], "http", 0))
	group.Go(func() error { return g.follow(groupCtx, serving) })
	group.Go(func() error { return g.flows.cutIdle(groupCtx, g.options.Limits) })
	group.Go(func() error { return g.recordCounted(groupCtx) })
	defer g.flushDenials()
	close(g.listening)
	<-groupCtx.Done()
	close(g.draining)
	for _, listener := range open {
		listener.stop()
	}
	drained, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.options.Grace)
	g.connections.drain(drained)
	cancel()
	end() // what is left is cut
	g.flows.cutAll()
	web.close()
	for _, listener := range open {
		listener.close()
	}
	err = group.Wait()
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return nil // as it was told to
	}
	return err
}

// follow keeps the forwarded ports, and the connections that there are, as the
// state says.
func (g *Gateway) follow(ctx, serving context.Context) error {
	forwards := &forwards{gateway: g, open: map[int32]forwarding{}}
	defer forwards.close()
	for {
		changed := g.Changed()
		if err := forwards.update(ctx, serving, g.wantedForwards()); err != nil {
			g.metrics.failures.WithLabelValues("listen").Inc() // the others go on
		}
		g.cutForbidden()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// cutForbidden cuts the connections that are no longer allowed.
func (g *Gateway) cutForbidden() {
	for _, f := range g.flows.all() {
		if verdict := g.permits(f); verdict != allowed && f.cut() {
			g.denials.cut(f, verdict)
			g.metrics.denied.WithLabelValues(f.protocol, "no longer allowed").Inc()
		}
	}
}

// ports are those that the gateway always listens on.
type ports struct {
	questions net.PacketConn // DNS by UDP
	tcp       map[int32]*net.TCPListener
}

// openPorts opens all ports, or none.
func (g *Gateway) openPorts(ctx context.Context) (*ports, error) {
	questions, err := new(net.ListenConfig).ListenPacket(ctx, "udp", g.endpoint(render.DNSPort))
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	p := &ports{questions, map[int32]*net.TCPListener{}}
	for _, port := range []int32{render.DNSPort, render.HTTPPort, render.TLSPort, render.ProxyPort, render.HelloPort, render.CanaryPort} {
		listener, err := g.listen(ctx, port)
		if err != nil {
			_ = p.questions.Close()
			for _, open := range p.tcp {
				_ = open.Close()
			}
			return nil, err
		}
		p.tcp[port] = listener
	}
	return p, nil
}

// admitting has the listener's connections admitted.
func (g *Gateway) admitting(listener *net.TCPListener, protocol string, port int) *admitting {
	return &admitting{listener, g, protocol, port}
}

// listen opens a TCP port of the gateway.
func (g *Gateway) listen(ctx context.Context, port int32) (*net.TCPListener, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", g.endpoint(port))
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	return listener.(*net.TCPListener), nil
}

func (g *Gateway) endpoint(port int32) string {
	host := ""
	if g.options.Address.IsValid() {
		host = g.options.Address.String()
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// handleHello answers on the ports by which a gate tests its pod's policy.
func handleHello(_ context.Context, conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	_, _ = conn.Write([]byte("hello\n")) // that it connected is all that matters
}

// listening is a listener and the connections that came by it.
type listening struct {
	listener net.Listener
	handlers sync.WaitGroup
	once     sync.Once
}

// startListening accepts connections until it is stopped.
func startListening(ctx context.Context, listener net.Listener, handle func(context.Context, net.Conn)) *listening {
	l := &listening{listener: listener}
	l.handlers.Go(func() {
		for {
			conn, err := listener.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil { // out of file descriptors, as likely as not: a pause lets some go
				select {
				case <-ctx.Done():
					return
				case <-time.After(50 * time.Millisecond):
				}
				continue
			}
			l.handlers.Go(func() { handle(ctx, conn) })
		}
	})
	return l
}

// stop takes no further connection; close also waits for those that there are.
func (l *listening) stop() { l.once.Do(func() { _ = l.listener.Close() }) }

func (l *listening) close() {
	l.stop()
	l.handlers.Wait()
}

// clientOf is the address of the pod that a connection comes from.
func clientOf(address net.Addr) netip.Addr {
	parsed, err := netip.ParseAddrPort(address.String())
	if err != nil {
		return netip.Addr{}
	}
	return parsed.Addr().Unmap()
}

// Handler serves health and metrics.
func (g *Gateway) Handler(metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if reason := g.unready(); reason != "" {
			http.Error(w, reason, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}

// unready is why no client is to come yet, or none any more; empty where one may.
func (g *Gateway) unready() string {
	select {
	case <-g.draining:
		return "it is ending"
	default:
	}
	select {
	case <-g.listening:
	default:
		return "it does not listen yet"
	}
	if refusal := g.refusal(); refusal != "" {
		return "the API server refuses to tell it of " + refusal
	}
	if missing := g.Missing(); missing != "" {
		return "it does not know " + missing + " yet"
	}
	return ""
}
