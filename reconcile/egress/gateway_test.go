//go:build linux

package egress_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/agentpane/sandboxctl/reconcile/audit"
	"github.com/agentpane/sandboxctl/reconcile/egress"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

func TestTLSGoesByServerName(t *testing.T) {
	r := newRig(t, egress.DefaultLimits())
	for _, test := range []struct {
		client netip.Addr
		name   string
		want   bool
	}{
		{sandbox, "allowed.test", true},
		{sandbox, "ALLOWED.test", true},
		{sandbox, "xn--bcher-kva.test", true},
		{sandbox, "a.wild.test", true},
		{sandbox, "b.a.wild.test", true},
		{sandbox, "wild.test", false},
		{sandbox, "notwild.test", false},
		{sandbox, "denied.test", false},
		{sandbox, "allowed.test.denied.test", false},
		{sandbox, "", false},
		{sandbox, "rebound.test", false},
		{sandbox, "internal.test", false}, // on port 80 only
		{empty, "allowed.test", false},
		{stranger, "allowed.test", false},
		{open, "allowed.test", false},
	} {
		got, err := r.https(test.client, test.name)
		if (err == nil) != test.want || test.want && !strings.Contains(got, "name="+test.name) && !strings.Contains(strings.ToLower(got), "name="+strings.ToLower(test.name)) {
			t.Errorf("%q from %s: got %q, %v; want it served: %v", test.name, test.client, got, err, test.want)
		}
	}
	for _, want := range []string{`"sandboxId":"api"`, `"host":"denied.test"`, `does not name the host`, `say which host`, `no sandbox's`} {
		if !strings.Contains(r.log.String(), want) {
			t.Errorf("the audit log has no %s", want)
		}
	}
	if report, err := audit.Verify(strings.NewReader(r.log.String()), ""); err != nil || !report.OK() {
		t.Errorf("the audit log: %+v, %v", report, err)
	}
}

// TestWhatIsNoClientHello is reset, and never reaches anybody.
func TestWhatIsNoClientHello(t *testing.T) {
	r := newRig(t, egress.Limits{Connections: 100, PerSandbox: 100, Idle: time.Minute, Greeting: 200 * time.Millisecond})
	for name, sent := range map[string]string{
		"nothing":    "",
		"plain HTTP": "GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n",
		"a torn one": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"zeros":      strings.Repeat("\x00", 70_000),
		"an alert":   "\x15\x03\x01\x00\x02\x02\x28",
		"a huge one": "\x16\x03\x01\x40\x00" + strings.Repeat("\x01", 0x4000) + strings.Repeat("\x16\x03\x01\x40\x00"+strings.Repeat("\x01", 0x4000), 5),
	} {
		conn, err := r.dial(sandbox, render.TLSPort)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, sent) // it may be reset meanwhile
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		if answer, err := io.ReadAll(conn); len(answer) > 0 || err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: got %q, %v; want it reset", name, answer, err)
		}
		conn.Close()
	}
}

func TestHTTPGoesByHost(t *testing.T) {
	r := newRig(t, egress.DefaultLimits())
	const end = "\r\nConnection: close\r\n\r\n"
	for _, test := range []struct {
		name, request, want string
		port                int
	}{
		{"an allowed host", "GET / HTTP/1.1\r\nHost: allowed.test" + end, "host=allowed.test", render.HTTPPort},
		{"with its port", "GET / HTTP/1.1\r\nHost: allowed.test:80" + end, "host=allowed.test:80", render.HTTPPort},
		{"by a proxy's request", "GET http://allowed.test/x HTTP/1.1\r\nHost: allowed.test" + end, "host=allowed.test", render.ProxyPort},
		{"a proxy's request for another than its Host says", "GET http://denied.test/ HTTP/1.1\r\nHost: allowed.test" + end, "403", render.ProxyPort},
		{"a public one of several addresses", "GET / HTTP/1.1\r\nHost: mixed.test" + end, "host=mixed.test", render.HTTPPort},
		{"an internal host that may be", "GET / HTTP/1.1\r\nHost: internal.test" + end, "host=internal.test", render.HTTPPort},
		{"a metadata service, though internal", "GET / HTTP/1.1\r\nHost: metadata.test" + end, "403", render.HTTPPort},
		{"a denied host", "GET / HTTP/1.1\r\nHost: denied.test" + end, "403", render.HTTPPort},
		{"another port", "GET / HTTP/1.1\r\nHost: allowed.test:8080" + end, "403", render.HTTPPort},
		{"an address", "GET / HTTP/1.1\r\nHost: 198.51.100.10" + end, "403", render.HTTPPort},
		{"an IPv6 address", "GET / HTTP/1.1\r\nHost: [::1]:80" + end, "403", render.HTTPPort},
		{"no host", "GET / HTTP/1.0\r\n\r\n", "403", render.HTTPPort},
		{"two hosts", "GET / HTTP/1.1\r\nHost: allowed.test\r\nHost: denied.test" + end, "400", render.HTTPPort},
		{"a name that is rebound", "GET / HTTP/1.1\r\nHost: rebound.test" + end, "403", render.HTTPPort},
		{"a name that does not exist", "GET / HTTP/1.1\r\nHost: none.test" + end, "502", render.HTTPPort},
		{"a head that is too long", "GET / HTTP/1.1\r\nHost: allowed.test\r\nX: " + strings.Repeat("x", 30_000) + end, "431", render.HTTPPort},
		{"another request on the same connection", "GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\nGET / HTTP/1.1\r\nHost: denied.test" + end, "403", render.HTTPPort},
		{"two lengths (smuggling)", "POST / HTTP/1.1\r\nHost: allowed.test\r\nContent-Length: 5\r\nContent-Length: 6" + end, "400", render.HTTPPort},
	} {
		got, err := r.http(sandbox, test.port, test.request)
		if !strings.Contains(got, test.want) {
			t.Errorf("%s: got %q, %v; want %q", test.name, got, err, test.want)
		}
		if strings.HasPrefix(test.want, "4") && strings.Contains(got, "host=denied") {
			t.Errorf("%s: it reached %q", test.name, got)
		}
	}
	if got, err := r.http(stranger, render.HTTPPort, "GET / HTTP/1.1\r\nHost: allowed.test"+end); err == nil {
		t.Errorf("a stranger got %q", got)
	}
	for _, client := range []netip.Addr{empty, open} {
		if got, _ := r.http(client, render.HTTPPort, "GET / HTTP/1.1\r\nHost: allowed.test"+end); !strings.Contains(got, "403") {
			t.Errorf("%s: got %q", client, got)
		}
	}
}

func TestForward(t *testing.T) {
	r := newRig(t, egress.DefaultLimits())
	const request = "GET / HTTP/1.1\r\nHost: ssh\r\nConnection: close\r\n\r\n"
	r.wait("the host to be reached", func() bool { // the port opens a moment after the others
		got, err := r.http(sandbox, 22222, request)
		return err == nil && strings.Contains(got, "host=ssh")
	})
	for _, client := range []netip.Addr{empty, stranger, open} {
		if got, err := r.http(client, 22222, request); err == nil {
			t.Errorf("%s: got %q, want it reset", client, got)
		}
	}
	r.SetConfig(render.GatewayConfig{Fleet: "f", Lists: lists()})
	r.wait("the port to be closed", func() bool {
		conn, err := r.dial(sandbox, 22222)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
}

func TestDNSAnswersWithItself(t *testing.T) {
	r := newRig(t, egress.DefaultLimits())
	for _, test := range []struct {
		client netip.Addr
		name   string
		kind   uint16
		rcode  int
		want   string
	}{
		{sandbox, "allowed.test", dns.TypeA, dns.RcodeSuccess, "127.77.0.9"}, // it has a port of its own
		{sandbox, "aLLowed.TEST", dns.TypeA, dns.RcodeSuccess, "127.77.0.9"},
		{sandbox, "a.wild.test", dns.TypeA, dns.RcodeSuccess, "127.77.0.1"},
		{sandbox, "xn--bcher-kva.test", dns.TypeA, dns.RcodeSuccess, "127.77.0.1"},
		{sandbox, "bücher.test", dns.TypeA, dns.RcodeNameError, ""},
		{sandbox, "allowed.test", dns.TypeAAAA, dns.RcodeSuccess, ""},
		{sandbox, "allowed.test", dns.TypeHTTPS, dns.RcodeSuccess, ""}, // which would bring keys for ECH
		{sandbox, "allowed.test", dns.TypeTXT, dns.RcodeSuccess, ""},
		{sandbox, "allowed.test", dns.TypeANY, dns.RcodeSuccess, ""},
		{sandbox, render.GatewayName, dns.TypeA, dns.RcodeSuccess, "127.77.0.1"},
		{sandbox, "wild.test", dns.TypeA, dns.RcodeNameError, ""},
		{sandbox, "denied.test", dns.TypeA, dns.RcodeNameError, ""},
		{sandbox, "secret.denied.test", dns.TypeTXT, dns.RcodeNameError, ""},
		{sandbox, ".", dns.TypeNS, dns.RcodeNameError, ""},
		{empty, "allowed.test", dns.TypeA, dns.RcodeNameError, ""},
		{stranger, "allowed.test", dns.TypeA, dns.RcodeRefused, ""},
		{open, "denied.test", dns.TypeA, dns.RcodeSuccess, "198.51.100.20"},
		{open, "nobody.test", dns.TypeA, dns.RcodeNameError, ""},
	} {
		for _, network := range []string{"udp", "tcp"} {
			if test.client == stranger && network == "tcp" {
				continue // it gets no connection
			}
			reply := r.ask(test.client, network, test.name, test.kind)
			got := ""
			for _, record := range reply.Answer {
				got += record.(*dns.A).A.String()
			}
			if reply.Rcode != test.rcode || got != test.want {
				t.Errorf("%s %s from %s by %s: got %s %q, want %s %q", test.name, dns.TypeToString[test.kind], test.client, network,
					dns.RcodeToString[reply.Rcode], got, dns.RcodeToString[test.rcode], test.want)
			}
		}
	}
	if n := r.names.count("secret.denied.test"); n > 0 {
		t.Errorf("a name that is not allowed was asked for %d times: data can leave by it", n)
	}
}

// TestShrinkingListCutsLiveFlows, on every kind of port, within a moment; and
// what stays allowed lives on, also while the pod's new label is not there yet.
func TestShrinkingListCutsLiveFlows(t *testing.T) {
	r := newRig(t, egress.DefaultLimits())
	flow := func(port int, first string) net.Conn {
		conn, err := r.dial(sandbox, port)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if _, err := io.WriteString(conn, first); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	alive := func(conn net.Conn, host string) bool {
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host); err != nil {
			return false
		}
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return false
		}
		_, err = io.Copy(io.Discard, response.Body)
		return err == nil
	}
	secure := func(name string) net.Conn {
		conn := tls.Client(flow(render.TLSPort, ""), &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if err := conn.Handshake(); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	going, staying, forwarded := secure("allowed.test"), secure("a.wild.test"), flow(22222, "")
	for name, conn := range map[string]net.Conn{"allowed.test": going, "a.wild.test": staying, "any": forwarded} {
		if !alive(conn, name) {
			t.Fatalf("%s is dead from the start", name)
		}
	}

	// The file's new list has another id: it comes first, then the pod's label.
	smaller := lists()
	shrunk := smaller["some"]
	delete(smaller, "some")
	shrunk.Hosts = shrunk.Hosts[1:]
	smaller["less"] = shrunk
	r.SetConfig(config(smaller))
	if !alive(going, "allowed.test") || !alive(staying, "a.wild.test") {
		t.Error("the old list is forgotten before the pod has the new one")
	}
	r.SetPod("1", egress.Identity{About: audit.About{SandboxID: "api"}, List: "less"}, sandbox)
	for name, conn := range map[string]net.Conn{"allowed.test": going, "any": forwarded} {
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, err := conn.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s lives on: read %d, %v", name, n, err)
		}
	}
	if !alive(staying, "a.wild.test") {
		t.Error("what is still allowed was cut")
	}
	if got, err := r.https(sandbox, "allowed.test"); err == nil {
		t.Errorf("what is no longer allowed can be reached anew: %q", got)
	}
	if !strings.Contains(r.log.String(), `"event":"security.egress_cut"`) {
		t.Error("that it was cut is not recorded")
	}
}

// TestNoLongerInternal: a host's private address is cut off, its public one is not.
func TestNoLongerInternal(t *testing.T) {
	r := newRig(t, egress.DefaultLimits())
	under := func(list string, internal bool) {
		r.SetConfig(config(map[string]render.GatewayList{list: {Hosts: []schema.EgressRule{
			{Host: "internal.test", Ports: []int32{80}, Internal: internal}, {Host: "allowed.test", Ports: []int32{80}, Internal: internal},
		}}}))
		r.SetPod("1", egress.Identity{List: list}, sandbox)
	}
	under("one", true)
	private, public := r.upgraded("internal.test"), r.upgraded("allowed.test")
	under("another", false)
	r.mustEnd("the private address", private, private)
	_ = public.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := public.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the public address is cut off, too: %v", err)
	}
}

// TestIdentity: an address that changes hands takes nothing along.
func TestIdentity(t *testing.T) {
	r := newRig(t, egress.DefaultLimits())
	serves := func() bool { _, err := r.https(sandbox, "allowed.test"); return err == nil }
	if !serves() {
		t.Fatal("it does not serve")
	}
	r.SetPod("9", egress.Identity{}, sandbox)
	if serves() {
		t.Error("an address that two pods claim is served")
	}
	r.SetPod("1", egress.Identity{}) // the first has gone
	if serves() {
		t.Error("the second pod has the first one's list")
	}
	r.SetPod("9", egress.Identity{List: "some"}, sandbox) // a warm pod is claimed
	if !serves() {
		t.Error("a claimed pod is not served")
	}
	r.SetPod("9", egress.Identity{List: "other"}, sandbox)
	if serves() {
		t.Error("a list that nobody knows is served")
	}
}

// TestLimits: one sandbox cannot take all connections, and who says nothing
// loses its place.
func TestLimits(t *testing.T) {
	r := newRig(t, egress.Limits{Connections: 4, PerSandbox: 2, Idle: 300 * time.Millisecond, Greeting: 2 * time.Second})
	var silent []net.Conn
	for range 2 {
		r.wait("a place", func() bool { // the rig's own first connection may still have one
			conn, err := r.dial(sandbox, render.TLSPort)
			if err == nil {
				silent = append(silent, conn)
			}
			return err == nil
		})
	}
	r.wait("the limit to be reached, and recorded", func() bool {
		_, err := r.https(sandbox, "allowed.test")
		return err != nil && strings.Contains(r.log.String(), "too many connections")
	})
	for _, conn := range silent {
		defer conn.Close()
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
			t.Errorf("a silent connection is kept: %v", err)
		}
	}
	r.wait("places to be free again", func() bool { _, err := r.https(sandbox, "allowed.test"); return err == nil })
	idle, err := r.dial(sandbox, 22222)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	_ = idle.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := idle.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("an idle connection is kept: %v", err)
	}
}

// TestNamesAreResolvedAnew once their time is over, and not before.
func TestNamesAreResolvedAnew(t *testing.T) {
	names := newNameServer(t)
	names.set("a.test", "198.51.100.1")
	now := time.Now()
	resolver := egress.NewResolver([]string{names.address}, func() time.Time { return now })
	lookup := func() string {
		got, err := resolver.Lookup(t.Context(), "a.test")
		return fmt.Sprint(got, err)
	}
	first := lookup()
	names.set("a.test", "198.51.100.2")
	if second := lookup(); second != first || names.count("a.test") != 1 {
		t.Errorf("got %s and %s after %d questions, want one answer within its time", first, second, names.count("a.test"))
	}
	now = now.Add(2 * time.Second)
	if got := lookup(); !strings.Contains(got, "198.51.100.2") {
		t.Errorf("got %s, want the name's new address", got)
	}
}

func TestLookup(t *testing.T) {
	names := newNameServer(t)
	var many []string
	for i := range 150 {
		many = append(many, fmt.Sprintf("198.51.100.%d", i+1))
	}
	names.set("many.test", many...)
	names.set("v6.test", "2001:db8::1")
	names.set("mapped.test", "::ffff:10.0.0.1")
	names.set("empty.test")
	dead, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := dead.LocalAddr().String()
	dead.Close() // nobody answers there
	resolver := egress.NewResolver([]string{address, names.address}, time.Now)
	for name, want := range map[string]string{"many.test": "150 [198.51.100.1", "v6.test": "1 [2001:db8::1]", "mapped.test": "1 [::ffff:10.0.0.1]", "empty.test": "0 []", "none.test": "0 []"} {
		got, err := resolver.Lookup(t.Context(), name)
		if text := fmt.Sprintf("%d %v", len(got), got); !strings.HasPrefix(text, want) || (err == nil) != (len(got) > 0) {
			t.Errorf("%s: got %s, %v; want %s", name, text, err, want)
		}
	}
}
