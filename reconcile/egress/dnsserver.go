package egress

import (
	"context"
	"net"
	"net/netip"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

const (
	// addressTTL is how many seconds the gateway's own address is good for: it
	// changes only when its Service is made anew.
	addressTTL = 30
	// missingTTL is how many seconds a name is remembered not to be there: a
	// list may grow.
	missingTTL = 2
	// passedOn is how many questions the cluster's DNS has to answer at once,
	// passedOnEach how many of one client.
	passedOn, passedOnEach = 2048, 64
)

// dnsServers serve DNS on UDP and TCP.
type dnsServers struct {
	servers []*dns.Server
}

// newDNS serves on what is given; ctx bounds the questions that are passed on.
func (g *Gateway) newDNS(ctx context.Context, packets net.PacketConn, listener net.Listener) *dnsServers {
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, question *dns.Msg) {
		reply := g.answer(ctx, clientOf(w.RemoteAddr()), question)
		if w.RemoteAddr().Network() == "udp" {
			reply.Truncate(udpSize(question))
		}
		_ = w.WriteMsg(reply) // who asked has gone, or asks again
	})
	return &dnsServers{[]*dns.Server{
		{PacketConn: packets, Handler: handler, UDPSize: dns.MinMsgSize, MsgAcceptFunc: accept},
		{Listener: listener, Handler: handler, MaxTCPQueries: 128, MsgAcceptFunc: accept},
	}}
}

// accept turns away what is no question, before it is parsed any further.
func accept(header dns.Header) dns.MsgAcceptAction {
	const response = 1 << 15
	switch {
	case header.Bits&response != 0:
		return dns.MsgIgnore
	case header.Qdcount != 1, header.Ancount > 0, header.Nscount > 0, header.Arcount > 2:
		return dns.MsgReject
	}
	return dns.MsgAccept
}

func udpSize(question *dns.Msg) int {
	if options := question.IsEdns0(); options != nil {
		return min(max(int(options.UDPSize()), dns.MinMsgSize), 1232)
	}
	return dns.MinMsgSize
}

func (d *dnsServers) serve(ctx context.Context) error {
	group, serving := errgroup.WithContext(ctx)
	for _, server := range d.servers {
		group.Go(server.ActivateAndServe)
	}
	stop := context.AfterFunc(serving, d.close) // one that fails ends the other
	defer stop()
	err := group.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (d *dnsServers) close() {
	for _, server := range d.servers {
		_ = server.Shutdown() // of one that has not started, or is over
		if server.Listener != nil {
			_ = server.Listener.Close()
		}
		if server.PacketConn != nil {
			_ = server.PacketConn.Close()
		}
	}
}

// answer answers a sandbox's question: an allowed name with the gateway's own
// address, and any other with that there is none. Where the allowlist has the
// preset dns, other questions are the cluster's to answer.
func (g *Gateway) answer(ctx context.Context, client netip.Addr, question *dns.Msg) *dns.Msg {
	if len(question.Question) != 1 { // a header may promise one that does not follow
		return new(dns.Msg).SetRcodeFormatError(question)
	}
	reply := new(dns.Msg).SetReply(question)
	reply.RecursionAvailable = true
	q := question.Question[0]
	name, isName := schema.CanonicalHost(q.Name)
	named, dnsAllowed, no := g.names(client, name)
	result := "denied"
	switch {
	case no != allowed:
		g.deny(client, name, 53, "dns", no)
		reply.Rcode = dns.RcodeRefused
	case question.Opcode != dns.OpcodeQuery || q.Qclass != dns.ClassINET:
		reply.Rcode = dns.RcodeNotImplemented
	case isName && (named || name == render.GatewayName):
		result = "own"
		if q.Qtype == dns.TypeA {
			g.addAddress(reply, q.Name, g.AddressOf(name))
		}
	case dnsAllowed:
		return g.passOn(ctx, client, question, reply)
	default:
		g.deny(client, name, 53, "dns", notNamed)
		reply.Rcode = dns.RcodeNameError
	}
	g.metrics.questions.WithLabelValues(result).Inc()
	if len(reply.Answer) == 0 && reply.Rcode != dns.RcodeRefused {
		reply.Ns = []dns.RR{&dns.SOA{
			Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: missingTTL},
			Ns:  render.GatewayName + ".", Mbox: "nobody.invalid.", Serial: 1, Refresh: 60, Retry: 60, Expire: 60, Minttl: missingTTL,
		}}
	}
	return reply
}

func (g *Gateway) addAddress(reply *dns.Msg, name string, address netip.Addr) {
	if !address.Is4() {
		reply.Rcode = dns.RcodeServerFailure // the Service has none yet: better later than a wrong answer
		return
	}
	reply.Answer = []dns.RR{&dns.A{
		Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: addressTTL},
		A:   address.AsSlice(),
	}}
}

// passOn has the cluster's DNS answer, unless that has much to answer for the
// client already.
func (g *Gateway) passOn(ctx context.Context, client netip.Addr, question, reply *dns.Msg) *dns.Msg {
	free, ok := g.questions.hold(client)
	if !ok {
		g.metrics.questions.WithLabelValues("too many").Inc()
		reply.Rcode = dns.RcodeServerFailure
		return reply
	}
	defer free()
	g.metrics.questions.WithLabelValues("passed on").Inc()
	answer, err := g.options.Resolver.Exchange(ctx, question)
	if err != nil {
		reply.Rcode = dns.RcodeServerFailure
		return reply
	}
	answer.Id = question.Id
	return answer
}
