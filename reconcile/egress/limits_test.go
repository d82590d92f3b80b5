//go:build linux

package egress_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/agentpane/sandboxctl/reconcile/egress"
	"github.com/agentpane/sandboxctl/render"
)

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

// mustEnd expects the gateway to end the connection.
func (r *rig) mustEnd(what string, from io.Reader, conn net.Conn) {
	r.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := io.Copy(io.Discard, from); errors.Is(err, os.ErrDeadlineExceeded) {
		r.Errorf("%s: it is kept, after %d bytes", what, n)
	}
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
