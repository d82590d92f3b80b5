//go:build linux

package egress_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/agentpane/sandboxctl/reconcile/egress"
	"github.com/agentpane/sandboxctl/render"
)

// metric is the sum of a metric over all that its labels may be.
func (r *rig) metric(name string) (sum int) {
	r.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		r.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "sandboxctl_egress_"+name {
			continue
		}
		for _, one := range family.GetMetric() {
			sum += int(one.GetGauge().GetValue() + one.GetCounter().GetValue()) // it is either
		}
	}
	return sum
}

// active is how many connections have a place.
func (r *rig) active() int { return r.metric("connections") }

// say connects as the sandbox and says something.
func (r *rig) say(port int, text string) net.Conn {
	r.Helper()
	conn, err := r.dial(sandbox, port)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, text); err != nil {
		r.Fatal(err)
	}
	return conn
}

// upgraded is a connection to the host on which nothing is said any more.
func (r *rig) upgraded(host string) net.Conn {
	r.Helper()
	conn := r.say(render.HTTPPort, "GET /upgrade HTTP/1.1\r\nHost: "+host+"\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		r.Fatalf("got %v, %v; want it upgraded", response, err)
	}
	return &buffered{conn, reader}
}

// mustEnd expects the gateway to end the connection.
func (r *rig) mustEnd(what string, from io.Reader, conn net.Conn) {
	r.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := io.Copy(io.Discard, from); errors.Is(err, os.ErrDeadlineExceeded) {
		r.Errorf("%s: it is kept, after %d bytes", what, n)
	}
}

// TestPlacesAreTakenAtOnce: connections that say nothing count, on every port.
func TestPlacesAreTakenAtOnce(t *testing.T) {
	r := newRig(t, egress.Limits{Connections: 100, PerSandbox: 2, Idle: time.Hour, Greeting: time.Minute})
	for _, port := range []int{render.HTTPPort, render.ProxyPort, render.DNSPort, render.TLSPort, 22222} {
		r.wait("all places to be free", func() bool { return r.active() == 0 })
		first, second := r.say(port, ""), r.say(port, "")
		r.wait(fmt.Sprintf("two connections to port %d to have a place", port), func() bool { return r.active() == 2 })
		if third, err := r.dial(sandbox, port); err == nil { // else it was reset before that was seen
			r.mustEnd(fmt.Sprintf("a third to port %d", port), third, third)
			third.Close()
		}
		first.Close()
		second.Close()
	}
	if !strings.Contains(r.log.String(), "too many connections") {
		t.Error("that there were too many is not recorded")
	}
}

// TestIdleHTTPIsEnded, whichever side it is that says nothing.
func TestIdleHTTPIsEnded(t *testing.T) {
	r := newRig(t, egress.Limits{Connections: 100, PerSandbox: 100, Idle: 300 * time.Millisecond, Greeting: time.Minute})
	const host = " HTTP/1.1\r\nHost: allowed.test\r\n"
	for what, request := range map[string]string{
		"a host that does not answer": "GET /silent" + host + "\r\n",
		"a body that does not come":   "POST /silent" + host + "Content-Length: 10\r\n\r\n",
	} {
		conn := r.say(render.HTTPPort, request)
		r.mustEnd(what, conn, conn)
	}

	conn := r.upgraded("allowed.test")
	r.mustEnd("an upgraded connection", conn, conn)

	r.wait("all places to be free", func() bool { return r.active() == 0 })
	if _, err := r.say(render.HTTPPort, "GET /100000000"+host+"\r\n").Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	r.wait("a client that does not read on to lose its place", func() bool { return r.active() == 0 })
}

// TestLinesOfAHead: each head of a connection has so many, and nothing else counts.
func TestLinesOfAHead(t *testing.T) {
	const most, ok, refused = 100, http.StatusOK, http.StatusBadRequest
	r := newRig(t, egress.DefaultLimits())
	head := func(method string, lines int, more string) string {
		text := method + " / HTTP/1.1\r\nHost: allowed.test\r\n" + more
		for i := strings.Count(text, "\n"); i <= lines; i++ {
			text += fmt.Sprintf("X%d:\n", i)
		}
		return text + "\r\n"
	}
	small, full, over, many := head("GET", 60, ""), head("GET", most, ""), head("GET", most+1, ""), head("GET", 2*most, "")
	lines := strings.Repeat("\n", 1000)
	post := head("POST", 60, "Content-Length: 1000\r\n")
	type step struct {
		sent string
		want []int // the answers to it
	}
	for name, steps := range map[string][]step{
		"as many as there may be":       {{full, []int{ok}}},
		"one more":                      {{over, []int{refused}}},
		"one more, and no end":          {{strings.TrimSuffix(over, "\r\n"), []int{refused}}},
		"one more, in two parts":        {{over[:500], nil}, {over[500:], []int{refused}}},
		"a line of spaces ends no head": {{head("GET", most+1, "A: b\n \n"), []int{refused}}},
		"a body behind it":              {{post + lines, []int{ok}}, {full, []int{ok}}},
		"a body after it":               {{post, nil}, {lines, []int{ok}}, {full, []int{ok}}},
		"two at once":                   {{small + small, []int{ok, ok}}},
		"two with bodies at once":       {{post + lines + post + lines, []int{ok, ok}}},
		"one after the other":           {{full, []int{ok}}, {full, []int{ok}}, {over, []int{refused}}},
		"many, behind another":          {{small + many, []int{ok, refused}}},
		"many, behind a body":           {{post + lines + many, []int{ok, refused}}},
		"one more, after a blank line":  {{post + lines, []int{ok}}, {"\n" + over, []int{refused}}},
	} {
		before, refusals := r.metric("denied_total"), 0
		conn := r.say(render.HTTPPort, "")
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		reader := bufio.NewReader(conn)
		for i, step := range steps {
			_, _ = io.WriteString(conn, step.sent) // it may have ended
			for _, want := range step.want {
				response, err := http.ReadResponse(reader, nil)
				if err != nil || response.StatusCode != want {
					t.Fatalf("%s: got %v, %v for part %d, want %d", name, response, err, i, want)
				}
				_, _ = io.Copy(io.Discard, response.Body)
				if want == refused {
					refusals++
				}
			}
		}
		if got := r.metric("denied_total") - before; got != refusals {
			t.Errorf("%s: %d refusals, want %d", name, got, refusals)
		}
	}
	if !strings.Contains(r.log.String(), "malformed") {
		t.Error("that a head is too long is not recorded")
	}
}

// TestHeadOfAnAnswer: a host has no more of the gateway's memory than a sandbox.
func TestHeadOfAnAnswer(t *testing.T) {
	const most = 100
	r := newRig(t, egress.DefaultLimits())
	head := func(status, lines int) string {
		text := fmt.Sprintf("HTTP/1.1 %d x\r\n", status)
		for i := range lines {
			text += fmt.Sprintf("X%d:\n", i)
		}
		return text
	}
	const end, body, size = "Content-Length: 10000\r\n\r\n", "x\n", 10_000
	answers := map[string]struct {
		sent string
		want int
	}{
		"full":     {head(http.StatusOK, most-1) + end + strings.Repeat(body, size/2), http.StatusOK},
		"over":     {head(http.StatusOK, most) + end + strings.Repeat(body, size/2), http.StatusBadGateway},
		"no-end":   {head(http.StatusOK, most+1), http.StatusBadGateway},
		"long":     {head(http.StatusOK, 1) + "X: " + strings.Repeat("x", 30_000), http.StatusBadGateway},
		"hints":    {head(http.StatusEarlyHints, 60) + "\r\n" + head(http.StatusOK, 60) + end + strings.Repeat(body, size/2), http.StatusOK},
		"behind":   {head(http.StatusEarlyHints, 60) + "\r\n" + head(http.StatusOK, 2*most) + end + strings.Repeat(body, size/2), http.StatusBadGateway},
		"upgraded": {head(http.StatusSwitchingProtocols, 1) + "Connection: Upgrade\r\nUpgrade: x\r\n\r\n" + strings.Repeat(body, size/2), http.StatusSwitchingProtocols},
	}
	r.web.Config.Handler.(*http.ServeMux).HandleFunc("/answer/{name}", func(w http.ResponseWriter, request *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, answers[request.PathValue("name")].sent) // the gateway may have gone
		_, _ = io.Copy(io.Discard, conn)                                     // until it does
	})
	for name, answer := range answers {
		conn := r.say(render.HTTPPort, "GET /answer/"+name+" HTTP/1.1\r\nHost: allowed.test\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		reader := bufio.NewReader(conn)
		response, err := http.ReadResponse(reader, nil)
		for err == nil && response.StatusCode == http.StatusEarlyHints {
			response, err = http.ReadResponse(reader, nil)
		}
		if err != nil || response.StatusCode != answer.want {
			t.Errorf("%s: got %v, %v; want %d", name, response, err, answer.want)
			continue
		}
		from := response.Body
		if answer.want == http.StatusSwitchingProtocols {
			from = io.NopCloser(reader)
		}
		if n, err := io.CopyN(io.Discard, from, size); answer.want != http.StatusBadGateway && err != nil {
			t.Errorf("%s: the body ends after %d bytes: %v", name, n, err)
		}
		conn.Close()
	}
}

// TestRestOfABodyHasATime: a client that was refused cannot keep its place by not
// sending what it has announced.
func TestRestOfABodyHasATime(t *testing.T) {
	r := newRig(t, egress.Limits{Connections: 100, PerSandbox: 100, Idle: time.Hour, Greeting: 200 * time.Millisecond})
	conn := r.say(render.HTTPPort, "POST / HTTP/1.1\r\nHost: denied.test\r\nContent-Length: 10\r\n\r\n")
	r.mustEnd("a body that does not come", conn, conn)
	r.wait("its place to be free", func() bool { return r.active() == 0 })
}

// TestSilentTunnelIsRefused: who says nothing in the time for its greeting could
// name any host afterwards.
func TestSilentTunnelIsRefused(t *testing.T) {
	r := newRig(t, egress.Limits{Connections: 100, PerSandbox: 100, Idle: time.Hour, Greeting: 200 * time.Millisecond})
	conn := r.say(render.ProxyPort, "CONNECT allowed.test:443 HTTP/1.1\r\nHost: allowed.test:443\r\n\r\n")
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, &http.Request{Method: http.MethodConnect})
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("got %v, %v; want a tunnel", response, err)
	}
	r.mustEnd("a tunnel on which nothing is said", reader, conn)
	r.wait("it to be recorded", func() bool { return strings.Contains(r.log.String(), "say which host") })
}

// TestForwardLeadsElsewhere: a port whose destination is another host now does not
// keep the old one.
func TestForwardLeadsElsewhere(t *testing.T) {
	r := newRig(t, egress.DefaultLimits())
	served := func() bool {
		_, err := r.http(sandbox, 22222, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		return err == nil
	}
	r.wait("the allowed host to be reached", served)
	other := config(lists())
	other.Forwards[0].Host = "denied.test"
	r.SetConfig(other)
	r.wait("the port to lead to a host that is denied", func() bool { return !served() })
	r.SetConfig(config(lists()))
	r.wait("the allowed host to be reached again", served)
}

// TestTakenPort: a gateway that cannot listen says so, and ends; it is not ready
// before it listens.
func TestTakenPort(t *testing.T) {
	address := netip.MustParseAddr("127.77.1.1")
	taken, err := net.Listen("tcp", netip.AddrPortFrom(address, render.CanaryPort).String())
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	g := egress.New(egress.Options{Address: address, Resolver: egress.NewResolver(nil, time.Now), Now: time.Now, Limits: egress.DefaultLimits()})
	g.SetConfig(config(lists()))
	g.SetService("egress-gateway-f", address)
	g.SetComplete()
	if code, text := ready(g); code != http.StatusServiceUnavailable || !strings.Contains(text, "does not listen") {
		t.Errorf("before it listens: %d %s", code, text)
	}
	done := make(chan error, 1)
	go func() { done <- g.Run(t.Context()) }()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "listening") {
			t.Errorf("got %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
	}
	newRig(t, egress.DefaultLimits()) // which is ready once it listens
}

func ready(g *egress.Gateway) (code int, text string) {
	recorder := httptest.NewRecorder()
	g.Handler(http.NotFoundHandler()).ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	return recorder.Code, recorder.Body.String()
}

// TestFloodOfNames: whoever invents names does not fill the log, and is counted.
func TestFloodOfNames(t *testing.T) {
	const most, names = 64, 100
	r := newRig(t, egress.DefaultLimits())
	for i := range names {
		r.ask(sandbox, "udp", fmt.Sprintf("%d.denied.test", i), dns.TypeA)
	}
	r.stop()
	if got := strings.Count(r.log.String(), `"security.egress_denied"`); got != most+1 || !strings.Contains(r.log.String(), fmt.Sprintf(`"repeated":%d`, names-most)) {
		t.Errorf("%d records of %d refusals: %s", got, names, r.log.String())
	}
}
