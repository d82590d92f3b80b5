package egress

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	"github.com/agentpane/sandboxctl/schema"
)

// web serves plain HTTP, transparently and as an explicit proxy.
type web struct {
	server    *http.Server
	transport *http.Transport
	serving   chan struct{}
}

// The keys of what a request's context holds: the client's *webConn, and the
// connection to the host.
type (
	clientKey struct{}
	serverKey struct{}
)

// startHTTP serves HTTP on the listeners. Each request is looked at: that the
// first one of a connection was allowed says nothing of the next.
func (g *Gateway) startHTTP(ctx, serving context.Context, listeners ...*admitting) *web {
	w := &web{serving: make(chan struct{})}
	w.transport = &http.Transport{
		// A connection serves one request, and is not there for another
		// sandbox's; that of a request was made by the handler.
		DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: maxHeader,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, ok := ctx.Value(serverKey{}).(net.Conn)
			if !ok {
				return nil, errors.New("a request without a connection")
			}
			return conn, nil
		},
	}
	proxy := &httputil.ReverseProxy{
		Transport:     w.transport,
		FlushInterval: -1, // what the host says is the sandbox's at once
		ErrorLog:      log.New(io.Discard, "", 0),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", r.In.Host, r.In.Host
		},
		ModifyResponse: func(r *http.Response) error {
			if len(r.Header) > maxLines { // what was read ahead with one like 103 was not counted
				return errLines
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			http.Error(w, "sandboxctl: the host ended the connection", http.StatusBadGateway)
		},
	}
	w.server = &http.Server{
		ReadHeaderTimeout: g.options.Limits.Greeting, IdleTimeout: time.Minute, MaxHeaderBytes: maxHeader,
		ErrorLog:    log.New(io.Discard, "", 0), // what a client sends is not for our log
		BaseContext: func(net.Listener) context.Context { return serving },
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, clientKey{}, conn)
		},
		ConnState: heads,
		Handler:   http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.serveHTTP(w, r, proxy) }),
	}
	done := make(chan struct{}, len(listeners))
	for _, listener := range listeners {
		go func() {
			_ = w.server.Serve(webListener{listener}) // until it is closed
			done <- struct{}{}
		}()
	}
	go func() {
		for range listeners {
			<-done
		}
		close(w.serving)
	}()
	context.AfterFunc(ctx, func() { w.server.SetKeepAlivesEnabled(false) })
	return w
}

// close ends what is left, and waits for the listeners.
func (w *web) close() {
	_ = w.server.Close()
	<-w.serving
	w.transport.CloseIdleConnections()
}

// serveHTTP handles one request.
func (g *Gateway) serveHTTP(w http.ResponseWriter, r *http.Request, proxy http.Handler) {
	protocol := "http"
	if r.Method == http.MethodConnect {
		protocol = "connect"
	}
	conn := r.Context().Value(clientKey{}).(*webConn) // as all of the listeners'
	client := conn.client
	// What is left of the request's body afterwards has a time to come, too.
	defer func() { _ = conn.SetReadDeadline(time.Now().Add(g.options.Limits.Greeting)) }()
	refuse := func(status int, host string, port int, v verdict, told bool) {
		if !told {
			g.deny(client, host, port, protocol, v)
		}
		w.Header().Set("Connection", "close")
		http.Error(w, "sandboxctl: "+string(v), status)
	}
	name, port, err := hostOf(r)
	host, isName := schema.CanonicalHost(name)
	switch {
	case err != nil, len(r.Header) > maxLines:
		refuse(http.StatusBadRequest, "", port, malformed, false)
		return
	case name == "":
		refuse(http.StatusForbidden, "", port, noName, false)
		return
	case !isName:
		refuse(http.StatusForbidden, name, port, notAName, false)
		return
	}
	f, done, no := g.open(r.Context(), client, host, port, protocol)
	if no != nil {
		status := http.StatusForbidden
		if no.verdict == unresolvable || no.verdict == unreachable {
			status = http.StatusBadGateway
		}
		refuse(status, host, port, no.verdict, true)
		return
	}
	defer done()
	stop := context.AfterFunc(f.ctx, func() { reset(conn) }) // also while it waits for the client
	defer stop()
	if r.Method == http.MethodConnect {
		g.tunnel(w, conn, f)
		return
	}
	counted := &countedConn{Conn: f.server, flow: f, metrics: g.metrics}
	ctx := httptrace.WithClientTrace(f.ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(int, textproto.MIMEHeader) error { counted.head = head{}; return nil },
	})
	proxy.ServeHTTP(w, r.WithContext(context.WithValue(ctx, serverKey{}, net.Conn(counted))))
}

// hostOf is the host and port that a request is for.
func hostOf(r *http.Request) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(r.Host)
	if err != nil {
		if r.Method == http.MethodConnect { // which must name a port
			return "", 0, errors.New("no port")
		}
		return strings.Trim(r.Host, "[]"), 80, nil
	}
	number, err := strconv.ParseUint(text, 10, 16)
	return host, int(number), err
}

// tunnel is what CONNECT asks for. On it, TLS must be for the host that it was
// opened for.
func (g *Gateway) tunnel(w http.ResponseWriter, conn *webConn, f *flow) {
	_, buffered, err := http.NewResponseController(w).Hijack() // it is conn
	if err != nil {
		http.Error(w, "sandboxctl: this connection cannot be a tunnel", http.StatusInternalServerError)
		return
	}
	defer reset(conn)
	_ = conn.SetDeadline(time.Now().Add(g.options.Limits.Greeting))
	if _, err := io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	client := &bufferedConn{conn, buffered.Reader}
	var first []byte
	if f.port == 443 { // elsewhere the server may be the one to speak first
		var v verdict
		if first, v = peekTLS(client, f.host); v != allowed {
			if !f.ended.Load() { // else it was cut meanwhile
				g.deny(f.client, f.host, f.port, f.protocol, v)
			}
			return
		}
	}
	_ = conn.SetDeadline(time.Time{})
	if rest := buffered.Reader.Buffered(); rest > 0 {
		more, _ := buffered.Reader.Peek(rest) // it is there
		first = append(first, more...)
	}
	if relay(f, conn.TCPConn, first, g.options.Limits.look(), g.metrics) == nil {
		_ = conn.Close()
	}
}

// bufferedConn is a connection of which something was read already.
type bufferedConn struct {
	net.Conn
	reader *bufio.Reader
}

func (c *bufferedConn) Read(content []byte) (int, error) { return c.reader.Read(content) }

// countedConn is a flow's connection to its host that takes note of what is said
// on it, and of the lines of the answer's head.
type countedConn struct {
	net.Conn
	flow    *flow
	metrics *metrics
	head    head
}

func (c *countedConn) Read(content []byte) (int, error) {
	if c.head.err != nil {
		return 0, c.head.err
	}
	n, err := c.Conn.Read(content)
	c.said("in", n)
	if n = c.head.count(content[:n]); c.head.err != nil {
		return n, c.head.err
	}
	return n, err
}

func (c *countedConn) Write(content []byte) (int, error) {
	n, err := c.Conn.Write(content)
	c.said("out", n)
	return n, err
}

func (c *countedConn) said(direction string, n int) {
	if n > 0 {
		c.flow.note()
		c.metrics.bytes.WithLabelValues(direction).Add(float64(n))
	}
}
