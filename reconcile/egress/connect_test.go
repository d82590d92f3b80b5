//go:build linux

package egress_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/agentpane/sandboxctl/reconcile/egress"
	"github.com/agentpane/sandboxctl/render"
)

// connect opens a tunnel as the sandbox, if it can, and says something in the same
// breath. The status is what the gateway answers.
func (r *rig) connect(target, said string) (tunnel net.Conn, status int) {
	r.Helper()
	conn := r.say(render.ProxyPort, fmt.Sprintf("CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n%s", target, target, said))
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, &http.Request{Method: http.MethodConnect})
	if err != nil {
		r.Fatal(err)
	}
	return &buffered{conn, reader}, response.StatusCode
}

// buffered is a connection of which something may have been read already.
type buffered struct {
	net.Conn
	reader *bufio.Reader
}

func (b *buffered) Read(content []byte) (int, error) { return b.reader.Read(content) }

func TestConnect(t *testing.T) {
	r := newRig(t, egress.DefaultLimits())
	for target, want := range map[string]int{
		"allowed.test:443": 200, "allowed.test:2222": 200, "denied.test:443": 403, "allowed.test:22": 403,
		"198.51.100.10:443": 403, "rebound.test:443": 403, "[::1]:443": 403, "allowed.test": 400,
		"allowed.test:80": 200, "denied.test:80": 403, "a.wild.test:80": 403, "198.51.100.10:80": 403,
	} {
		if _, got := r.connect(target, ""); got != want {
			t.Errorf("%s: got %d, want %d", target, got, want)
		}
	}
	for name, want := range map[string]bool{"allowed.test": true, "denied.test": false, "a.wild.test": false, "": false} {
		conn, _ := r.connect("allowed.test:443", "")
		if got, err := r.httpsOn(conn, name); (err == nil) != want {
			t.Errorf("a tunnel to allowed.test with the server name %q: got %q, %v", name, got, err)
		}
	}
	if !strings.Contains(r.log.String(), "say which host") {
		t.Error("that a server name is missing is not recorded")
	}
	conn, _ := r.connect("allowed.test:443", "")
	if got, err := exchange(conn, "GET / HTTP/1.1\r\n\r\n"); !strings.Contains(got, "HTTPS server") {
		t.Errorf("what is no TLS does not reach the host: got %q, %v", got, err)
	}
	conn, _ = r.connect("allowed.test:2222", "")
	if got, err := exchange(conn, "GET / HTTP/1.1\r\nHost: anything\r\nConnection: close\r\n\r\n"); !strings.Contains(got, "host=anything") {
		t.Errorf("a tunnel to another port: got %q, %v", got, err)
	}
}

// TestPlainTunnelIsForOneHost: that CONNECT names an allowed host does not open the
// others that the same address serves.
func TestPlainTunnelIsForOneHost(t *testing.T) {
	r := newRig(t, egress.DefaultLimits())
	const first, end = "GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n", "\r\nConnection: close\r\n\r\n"
	for request, want := range map[string]string{
		"GET / HTTP/1.1\r\nHost: allowed.test" + end:                        "host=allowed.test",
		"GET / HTTP/1.1\r\nHost: ALLOWED.test.:80" + end:                    "host=ALLOWED.test.:80",
		"GET http://allowed.test/ HTTP/1.1\r\nHost: denied.test" + end:      "host=allowed.test",
		"GET / HTTP/1.1\r\nHost: denied.test" + end:                         "another host",
		"GET http://denied.test/ HTTP/1.1\r\nHost: allowed.test" + end:      "another host",
		"GET / HTTP/1.1\r\nHost: mixed.test" + end:                          "another host",
		"GET / HTTP/1.1\r\nHost: allowed.test:443" + end:                    "another host",
		"CONNECT allowed.test:80 HTTP/1.1\r\nHost: allowed.test:80" + end:   "another host",
		"CONNECT allowed.test:443 HTTP/1.1\r\nHost: allowed.test:443" + end: "another host",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n":              "400",
	} {
		for _, text := range []string{request, first + request} {
			for _, cut := range []int{0, 10, len(text)} {
				conn, _ := r.connect("allowed.test:80", text[:cut])
				if got, err := exchange(conn, text[cut:]); !strings.Contains(got, want) || strings.Contains(got, "host=denied") {
					t.Errorf("%q, of which %d bytes come with CONNECT: got %q, %v; want %q", text, cut, got, err, want)
				}
			}
		}
	}
	if !strings.Contains(r.log.String(), `"host":"denied.test","port":80,"protocol":"http"`) {
		t.Error("that it names another host is not recorded")
	}
}

// TestPlainTunnelIsAConnection like any other: it has its place for as long as it is
// open, and its requests their times, and their lists.
func TestPlainTunnelIsAConnection(t *testing.T) {
	const greeting = 500 * time.Millisecond
	r := newRig(t, egress.Limits{Connections: 100, PerSandbox: 100, Idle: time.Hour, Greeting: greeting})
	begun, over := make(chan struct{}), make(chan struct{})
	r.web.Config.Handler.(*http.ServeMux).HandleFunc("/late", func(w http.ResponseWriter, request *http.Request) {
		close(begun)
		select {
		case <-over:
			_, _ = io.WriteString(w, "late")
		case <-request.Context().Done():
		}
	})
	conn, _ := r.connect("allowed.test:80", "")
	if r.active() != 1 || r.names.count("allowed.test") > 0 {
		t.Errorf("%d places are taken by a tunnel, and %d connections made", r.active(), r.names.count("allowed.test"))
	}
	const host = " HTTP/1.1\r\nHost: allowed.test\r\n\r\n"
	answer := func(request string) string {
		_, _ = io.WriteString(conn, request)
		response, err := http.ReadResponse(conn.(*buffered).reader, nil)
		if err != nil {
			return err.Error()
		}
		text, err := io.ReadAll(response.Body)
		return fmt.Sprint(string(text), err)
	}
	_, _ = io.WriteString(conn, "GET /late"+host)
	<-begun
	other := r.say(render.HTTPPort, "")
	r.mustEnd("one that says nothing for as long as a greeting may take", other, other)
	close(over)
	if got := answer(""); !strings.Contains(got, "late") {
		t.Errorf("an answer that takes longer than a greeting: %s", got)
	}
	r.SetConfig(render.GatewayConfig{Fleet: "f", Lists: map[string]render.GatewayList{"some": {}}})
	if got := answer("GET /" + host); !strings.Contains(got, "does not name the host") {
		t.Errorf("once the list is another one: %s", got)
	}
	r.mustEnd("a refused one", conn, conn)
	r.wait("its place to be free", func() bool { return r.active() == 0 })

	r.SetConfig(config(lists()))
	silent, _ := r.connect("allowed.test:80", "")
	r.mustEnd("a tunnel on which nothing is said", silent, silent)
	r.connect("allowed.test:80", "") // which ends with the gateway
}
