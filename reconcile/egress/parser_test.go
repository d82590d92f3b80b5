package egress

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/miekg/dns"

	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// hello is a ClientHello as crypto/tls writes it.
func hello(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	var sent bytes.Buffer
	client := tls.Client(&recorder{&sent}, config)
	_ = client.Handshake() // nobody answers
	if sent.Len() == 0 {
		t.Fatal("nothing was sent")
	}
	return sent.Bytes()
}

// recorder is a connection of which only the writing is real.
type recorder struct{ io.Writer }

func (*recorder) Read([]byte) (int, error)         { return 0, io.EOF }
func (*recorder) Close() error                     { return nil }
func (*recorder) LocalAddr() net.Addr              { return nil }
func (*recorder) RemoteAddr() net.Addr             { return nil }
func (*recorder) SetDeadline(time.Time) error      { return nil }
func (*recorder) SetReadDeadline(time.Time) error  { return nil }
func (*recorder) SetWriteDeadline(time.Time) error { return nil }

func TestReadClientHello(t *testing.T) {
	long := strings.Repeat("a", 60) + "." + strings.Repeat("b", 60) + ".test"
	for _, name := range []string{"allowed.test", long, ""} {
		config := &tls.Config{ServerName: name, InsecureSkipVerify: true}
		sent := hello(t, config)
		for how, reader := range map[string]io.Reader{
			"at once": bytes.NewReader(sent), "byte by byte": iotest.OneByteReader(bytes.NewReader(sent)),
			"with more behind it": io.MultiReader(bytes.NewReader(sent), strings.NewReader("more")),
		} {
			got, read, err := readClientHello(reader)
			if err != nil || got != name || !bytes.Equal(read, sent[:len(read)]) || len(read) < len(sent) {
				t.Errorf("%q %s: got %q, %d of %d bytes, %v", name, how, got, len(read), len(sent), err)
			}
		}
	}
	if _, _, err := readClientHello(strings.NewReader("GET / HTTP/1.1\r\n\r\n")); err == nil {
		t.Error("plain HTTP is a ClientHello")
	}
	many := slices.Repeat([]string{strings.Repeat("p", 255)}, 70)
	if _, read, err := readClientHello(bytes.NewReader(hello(t, &tls.Config{ServerName: "allowed.test", NextProtos: many}))); !errors.Is(err, errHelloSize) {
		t.Errorf("a ClientHello is kept of which %d bytes were read: %v", len(read), err)
	}
	sent := hello(t, &tls.Config{ServerName: "allowed.test"})
	for cut := range len(sent) {
		if name, _, err := readClientHello(bytes.NewReader(sent[:cut])); err == nil {
			t.Fatalf("%d of %d bytes are a ClientHello for %q", cut, len(sent), name)
		}
	}
}

// FuzzClientHello: whatever a client sends, what is read of it is what it sent,
// bounded; and a name that comes out is one that stands in it.
func FuzzClientHello(f *testing.F) {
	f.Add(hello(f, &tls.Config{ServerName: "allowed.test"}))
	f.Add(hello(f, &tls.Config{ServerName: "allowed.test", MaxVersion: tls.VersionTLS12}))
	f.Add(hello(f, &tls.Config{InsecureSkipVerify: true}))
	f.Add([]byte("\x16\x03\x01\x00\x00"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		name, read, err := readClientHello(bytes.NewReader(sent))
		if len(read) > maxHello || !bytes.HasPrefix(sent, read) {
			t.Fatalf("read %d bytes that were not sent", len(read))
		}
		if err == nil && !bytes.Contains(bytes.ToLower(read), bytes.ToLower([]byte(name))) && !strings.Contains(name, ".") {
			t.Errorf("the name %q is not in what was sent", name)
		}
	})
}

// FuzzHost: what a request's Host becomes is a name that a file could allow, and
// one that differs from what was sent in case and a dot only.
func FuzzHost(f *testing.F) {
	for _, host := range []string{"allowed.test", "ALLOWED.test.:80", "[::1]:80", "a:b", "*.x.test", "\x00", "xn--bcher-kva.test", "allowed.test@denied.test", "127.0.0.1", "0x7f.1"} {
		f.Add(host, "GET")
		f.Add(host, "CONNECT")
	}
	f.Fuzz(func(t *testing.T, sent, method string) {
		name, port, err := hostOf(&http.Request{Method: method, Host: sent})
		host, ok := schema.CanonicalHost(name)
		if err != nil || !ok {
			return
		}
		if port < 0 || port > 65535 || !strings.HasPrefix(strings.ToLower(sent), host) {
			t.Errorf("%q is %q port %d", sent, host, port)
		}
		if _, err := netip.ParseAddr(host); err == nil || strings.ContainsAny(host, "/@:*\x00 ") {
			t.Errorf("%q is a host name", host)
		}
	})
}

// FuzzQuestion: whatever is asked, there is an answer that can be packed, and
// only an allowed name has an address.
func FuzzQuestion(f *testing.F) {
	f.Add([]byte("\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00")) // a header that promises a question
	for _, name := range []string{"allowed.test.", "a.wild.test.", "denied.test.", ".", "\\000.test."} {
		packed, err := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed)
	}
	g := New(Options{Now: time.Now, Limits: DefaultLimits()})
	client := netip.MustParseAddr("127.0.0.2")
	g.SetConfig(render.GatewayConfig{Fleet: "f", Lists: map[string]render.GatewayList{"l": {Hosts: []schema.EgressRule{
		{Host: "allowed.test", Ports: []int32{443}}, {Host: "*.wild.test", Ports: []int32{443}},
	}}}})
	g.SetPod("1", Identity{List: "l"}, client)
	g.SetService("egress-gateway-f", netip.MustParseAddr("127.0.0.1"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		question := new(dns.Msg)
		if question.Unpack(sent) != nil {
			return // as the server does
		}
		reply := g.answer(t.Context(), client, question)
		reply.Truncate(udpSize(question))
		packed, err := reply.Pack()
		if err != nil || len(packed) > 1232 {
			t.Errorf("the answer to %v cannot be sent: %v, %d bytes", question, err, len(packed))
		}
		if len(question.Question) != 1 {
			if reply.Rcode != dns.RcodeFormatError || len(reply.Answer) > 0 {
				t.Errorf("the answer to %v is %v", question, reply)
			}
			return
		}
		name := dns.CanonicalName(question.Question[0].Name)
		if len(reply.Answer) > 0 && name != "allowed.test." && !strings.HasSuffix(name, ".wild.test.") && name != render.GatewayName+"." {
			t.Errorf("%s has an address", name)
		}
	})
}

// TestAddressesOfAnAnswer: only what hangs together with the question counts.
func TestAddressesOfAnAnswer(t *testing.T) {
	record := func(text string) dns.RR {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		return rr
	}
	for name, test := range map[string]struct {
		records []string
		want    string
		ttl     time.Duration
	}{
		"an address":           {[]string{"a.test. 60 A 198.51.100.1"}, "[198.51.100.1]", time.Minute},
		"two":                  {[]string{"a.test. 60 A 198.51.100.1", "A.test. 30 A 198.51.100.2"}, "[198.51.100.1 198.51.100.2]", 30 * time.Second},
		"an alias":             {[]string{"a.test. 5 CNAME b.test.", "b.test. 60 A 198.51.100.1"}, "[198.51.100.1]", 5 * time.Second},
		"aliases out of order": {[]string{"c.test. 60 A 198.51.100.1", "b.test. 60 CNAME c.test.", "a.test. 60 CNAME b.test."}, "[198.51.100.1]", time.Minute},
		"a circle":             {[]string{"a.test. 60 CNAME b.test.", "b.test. 60 CNAME a.test."}, "[]", time.Minute},
		"somebody else's":      {[]string{"other.test. 60 A 198.51.100.1"}, "[]", mostTTL},
		"one beside":           {[]string{"a.test. 60 A 198.51.100.1", "other.test. 60 A 10.0.0.1"}, "[198.51.100.1]", time.Minute},
	} {
		var reply dns.Msg
		for _, text := range test.records {
			reply.Answer = append(reply.Answer, record(text))
		}
		addresses, ttl := addressesOf(&reply, "a.test.")
		if got := strings.ReplaceAll(strings.TrimSpace(sprint(addresses)), "<nil>", ""); got != test.want || ttl != test.ttl {
			t.Errorf("%s: got %s for %s, want %s for %s", name, got, ttl, test.want, test.ttl)
		}
	}
}

func sprint(addresses []netip.Addr) string {
	var all []string
	for _, address := range addresses {
		all = append(all, address.String())
	}
	return "[" + strings.Join(all, " ") + "]"
}
