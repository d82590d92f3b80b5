//go:build linux

package egress_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/agentpane/sandboxctl/reconcile/audit"
	"github.com/agentpane/sandboxctl/reconcile/egress"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// What tests on a real cluster leave is the client's idle connections to it.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*ClientConn).readLoop"),
		goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*clientConnReadLoop).run"))
}

// The gateway under test listens on an address of the loopback network, and its
// clients have others: to it they are pods.
var (
	gatewayAddress = netip.MustParseAddr("127.77.0.1")
	sandbox        = netip.MustParseAddr("127.77.0.2") // has the list "some"
	empty          = netip.MustParseAddr("127.77.0.3") // a warm pod: it has no list
	stranger       = netip.MustParseAddr("127.77.0.4") // no pod at all
	open           = netip.MustParseAddr("127.77.0.5") // has the list "dns"
)

// rig is a gateway, the names that it can resolve, and the one server behind
// all public addresses.
type rig struct {
	testing.TB
	*egress.Gateway
	names *nameServer
	web   *httptest.Server
	tls   *httptest.Server
	log   *syncBuffer
	pool  *x509.CertPool

	registry *prometheus.Registry
	stop     func() // ends the gateway, and waits until it has ended
}

// syncBuffer is what several goroutines write to.
type syncBuffer struct {
	mutex  sync.Mutex
	buffer bytes.Buffer
}

func (b *syncBuffer) Write(content []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.buffer.Write(content)
}

func (b *syncBuffer) String() string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.buffer.String()
}

type zeros struct{}

func (zeros) Read(content []byte) (int, error) { clear(content); return len(content), nil }

// lists are what the sandboxes of the tests may reach.
func lists() map[string]render.GatewayList {
	return map[string]render.GatewayList{
		"some": {Hosts: []schema.EgressRule{
			{Host: "allowed.test", Ports: []int32{80, 443, 2222}},
			{Host: "*.wild.test", Ports: []int32{443}},
			{Host: "rebound.test", Ports: []int32{80, 443}},
			{Host: "mixed.test", Ports: []int32{80}},
			{Host: "internal.test", Ports: []int32{80}, Internal: true},
			{Host: "metadata.test", Ports: []int32{80}, Internal: true},
			{Host: "none.test", Ports: []int32{80}},
			{Host: "xn--bcher-kva.test", Ports: []int32{443}},
		}},
		"dns": {DNS: true},
	}
}

func config(lists map[string]render.GatewayList) render.GatewayConfig {
	return render.GatewayConfig{Fleet: "f", Lists: lists, Forwards: []render.Forward{
		{Host: "allowed.test", Port: 2222, Listen: 22222, Service: "egress-x-f"},
	}}
}

func newRig(t testing.TB, limits egress.Limits) *rig {
	t.Helper()
	r := &rig{TB: t, names: newNameServer(t), log: &syncBuffer{}, registry: prometheus.NewRegistry()}
	r.names.set("allowed.test", "198.51.100.10")
	r.names.set("denied.test", "198.51.100.20")
	r.names.set("a.wild.test", "198.51.100.10")
	r.names.set("b.a.wild.test", "198.51.100.10")
	r.names.set("wild.test", "198.51.100.10")
	r.names.set("xn--bcher-kva.test", "198.51.100.10")
	r.names.set("rebound.test", "10.0.0.1")
	r.names.set("mixed.test", "10.0.0.1", "198.51.100.10")
	r.names.set("internal.test", "10.0.0.1")
	r.names.set("metadata.test", "169.254.169.254")
	echo := http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		name := ""
		if request.TLS != nil {
			name = request.TLS.ServerName
		}
		fmt.Fprintf(w, "host=%s name=%s", request.Host, name)
		if size, err := strconv.Atoi(request.URL.Path[1:]); err == nil { // as much as is asked for
			_, _ = io.CopyN(w, zeros{}, int64(size)) // the client may have gone
		}
	})
	mux := http.NewServeMux()
	mux.Handle("/", echo)
	mux.HandleFunc("/silent", func(_ http.ResponseWriter, request *http.Request) { // it says nothing, whatever comes
		_, _ = io.Copy(io.Discard, request.Body)
		<-request.Context().Done()
	})
	mux.HandleFunc("/upgrade", func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		_, _ = io.Copy(io.Discard, conn) // until it is ended
	})
	r.web, r.tls = httptest.NewServer(mux), httptest.NewTLSServer(mux)
	t.Cleanup(r.web.Close)
	t.Cleanup(r.tls.Close)
	r.pool = x509.NewCertPool()
	r.pool.AddCert(r.tls.Certificate())
	r.Gateway = egress.New(egress.Options{
		Address:  gatewayAddress,
		Resolver: egress.NewResolver([]string{r.names.address}, time.Now),
		Dialer: func(ctx context.Context, network, address string) (net.Conn, error) {
			_, port, _ := net.SplitHostPort(address)
			target := r.web.Listener.Addr().String()
			if port == "443" {
				target = r.tls.Listener.Addr().String()
			}
			return new(net.Dialer).DialContext(ctx, network, target)
		},
		Audit:   audit.NewRecorder(audit.NewStream(r.log), time.Now, "gateway"),
		Metrics: r.registry, Now: time.Now, Grace: 100 * time.Millisecond, Limits: limits,
	})
	r.SetConfig(config(lists()))
	r.SetPod("1", egress.Identity{About: audit.About{SandboxID: "api", ResourceName: "pod-api"}, List: "some"}, sandbox)
	r.SetPod("2", egress.Identity{About: audit.About{SandboxID: "warm"}}, empty)
	r.SetPod("3", egress.Identity{About: audit.About{SandboxID: "dns"}, List: "dns"}, open)
	r.SetService("egress-gateway-f", gatewayAddress)
	r.SetService("egress-x-f", netip.MustParseAddr("127.77.0.9"))
	r.SetComplete()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Gateway.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(r.stop)
	r.wait("the gateway to be ready", func() bool { // a connection might be heard of late, and have a place then
		code, _ := ready(r.Gateway)
		return code == http.StatusOK
	})
	return r
}

// wait repeats a check that takes no time until it holds.
func (r *rig) wait(what string, check func() bool) {
	r.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !check() {
		select {
		case <-deadline:
			r.Fatalf("after 10s, still not: %s", what)
		case <-tick.C:
		}
	}
}

// dial connects to a port of the gateway as that client.
func (r *rig) dial(client netip.Addr, port int) (net.Conn, error) {
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(client, 0)), Timeout: 5 * time.Second}
	return dialer.Dial("tcp", netip.AddrPortFrom(gatewayAddress, uint16(port)).String())
}

// https makes a TLS connection with that server name and returns what the
// server has seen.
func (r *rig) https(client netip.Addr, name string) (string, error) {
	conn, err := r.dial(client, render.TLSPort)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return r.httpsOn(conn, name)
}

func (r *rig) httpsOn(conn net.Conn, name string) (string, error) {
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	secure := tls.Client(conn, &tls.Config{ServerName: name, InsecureSkipVerify: true}) // whom it reached is told by the answer
	if err := secure.Handshake(); err != nil {
		return "", err
	}
	return exchange(secure, "GET / HTTP/1.1\r\nHost: "+name+"\r\nConnection: close\r\n\r\n")
}

func exchange(conn net.Conn, request string) (string, error) {
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(conn)
	if err == nil && len(answer) == 0 {
		err = io.ErrUnexpectedEOF
	}
	return string(answer), err
}

// http sends a request as it stands to one of the HTTP ports.
func (r *rig) http(client netip.Addr, port int, request string) (string, error) {
	conn, err := r.dial(client, port)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return exchange(conn, request)
}

// ask asks the gateway's DNS.
func (r *rig) ask(client netip.Addr, network, name string, kind uint16) *dns.Msg {
	r.Helper()
	var local net.Addr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(client, 0))
	if network == "tcp" {
		local = net.TCPAddrFromAddrPort(netip.AddrPortFrom(client, 0))
	}
	asking := dns.Client{Net: network, Timeout: 5 * time.Second, Dialer: &net.Dialer{LocalAddr: local, Timeout: 5 * time.Second}}
	reply, _, err := asking.Exchange(new(dns.Msg).SetQuestion(dns.Fqdn(name), kind), netip.AddrPortFrom(gatewayAddress, render.DNSPort).String())
	if err != nil {
		r.Fatalf("asking for %s: %v", name, err)
	}
	return reply
}

// nameServer is the DNS that the gateway trusts.
type nameServer struct {
	address string
	mutex   sync.Mutex // protects what follows
	names   map[string][]string
	asked   map[string]int
	hold    chan struct{} // where there is one, no answer is given before it is closed
}

func newNameServer(t testing.TB) *nameServer {
	t.Helper()
	n := &nameServer{names: map[string][]string{}, asked: map[string]int{}}
	packets, err := net.ListenPacket("udp", "127.78.1.1:0") // where nobody else has the same port of TCP
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", packets.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	n.address = packets.LocalAddr().String()
	for _, server := range []*dns.Server{{PacketConn: packets, Handler: n}, {Listener: listener, Handler: n}} {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		var serving sync.WaitGroup
		serving.Go(func() { _ = server.ActivateAndServe() })
		<-started
		t.Cleanup(func() { _ = server.Shutdown(); serving.Wait() })
	}
	return n
}

func (n *nameServer) set(name string, addresses ...string) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	n.names[dns.Fqdn(name)] = addresses
}

func (n *nameServer) count(name string) int {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	return n.asked[dns.Fqdn(name)]
}

// holdBack has the server answer nothing until release is called.
func (n *nameServer) holdBack() (release func()) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	hold := make(chan struct{})
	n.hold = hold
	return func() { close(hold) }
}

func (n *nameServer) ServeDNS(w dns.ResponseWriter, request *dns.Msg) {
	n.mutex.Lock()
	hold := n.hold
	n.asked[request.Question[0].Name]++
	n.mutex.Unlock()
	if hold != nil {
		<-hold
	}
	n.mutex.Lock()
	defer n.mutex.Unlock()
	reply := new(dns.Msg).SetReply(request)
	q := request.Question[0]
	addresses, ok := n.names[q.Name]
	if !ok {
		reply.Rcode = dns.RcodeNameError
	}
	header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 1}
	for _, address := range addresses {
		ip, isV6 := net.ParseIP(address), strings.Contains(address, ":")
		if q.Qtype == dns.TypeA && !isV6 {
			reply.Answer = append(reply.Answer, &dns.A{Hdr: header, A: ip})
		}
		if q.Qtype == dns.TypeAAAA && isV6 {
			reply.Answer = append(reply.Answer, &dns.AAAA{Hdr: header, AAAA: ip})
		}
	}
	if w.RemoteAddr().Network() == "udp" {
		reply.Truncate(dns.MinMsgSize)
	}
	_ = w.WriteMsg(reply)
}
