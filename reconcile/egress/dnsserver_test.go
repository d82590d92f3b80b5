//go:build linux

package egress_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/agentpane/sandboxctl/reconcile/egress"
	"github.com/agentpane/sandboxctl/render"
)

// asks is a connection to the gateway's DNS.
func (r *rig) asks(client netip.Addr, network string) *dns.Conn {
	r.Helper()
	var local net.Addr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(client, 0))
	if network == "tcp" {
		local = net.TCPAddrFromAddrPort(netip.AddrPortFrom(client, 0))
	}
	dialer := net.Dialer{LocalAddr: local, Timeout: 5 * time.Second}
	conn, err := dialer.Dial(network, netip.AddrPortFrom(gatewayAddress, render.DNSPort).String())
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	return &dns.Conn{Conn: conn}
}

// TestQuestionWithoutOne: a header that promises a question which does not follow
// is malformed, and hurts nobody.
func TestQuestionWithoutOne(t *testing.T) {
	r := newRig(t, egress.DefaultLimits())
	for _, network := range []string{"udp", "tcp"} {
		conn := r.asks(sandbox, network)
		if _, err := conn.Write([]byte("\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00")); err != nil {
			t.Fatal(err)
		}
		if reply, err := conn.ReadMsg(); err != nil || reply.Id != 7 || reply.Rcode != dns.RcodeFormatError {
			t.Errorf("by %s: got %v, %v", network, reply, err)
		}
	}
	r.ask(sandbox, "udp", "allowed.test", dns.TypeA)
}

// TestPassedOnQuestionsAreBounded: a sandbox has so many questions under way, and
// no more.
func TestPassedOnQuestionsAreBounded(t *testing.T) {
	const most = 64
	r := newRig(t, egress.DefaultLimits())
	release := r.names.holdBack()
	conn := r.asks(open, "udp")
	for range most + 1 {
		if err := conn.WriteMsg(new(dns.Msg).SetQuestion("denied.test.", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
	}
	reply, err := conn.ReadMsg()
	release()
	if err != nil || reply.Rcode != dns.RcodeServerFailure {
		t.Fatalf("one too many: got %v, %v", reply, err)
	}
	for range most {
		if reply, err := conn.ReadMsg(); err != nil || reply.Rcode != dns.RcodeSuccess {
			t.Fatalf("got %v, %v; want an answer", reply, err)
		}
	}
}

// TestLookupKeepsToItsContext, also of who asks first; the question goes on for the
// others.
func TestLookupKeepsToItsContext(t *testing.T) {
	names := newNameServer(t)
	names.set("a.test", "198.51.100.1")
	release := names.holdBack()
	resolver := egress.NewResolver([]string{names.address}, time.Now)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := resolver.Lookup(ended, "a.test")
	release()
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got, err := resolver.Lookup(t.Context(), "a.test"); err != nil || len(got) != 1 || names.count("a.test") != 1 {
		t.Errorf("got %v, %v after %d questions, want the answer to the first", got, err, names.count("a.test"))
	}
	resolver.Close()
	if _, err := resolver.Lookup(t.Context(), "b.test"); !errors.Is(err, context.Canceled) {
		t.Errorf("once it is closed: got %v", err)
	}
}
