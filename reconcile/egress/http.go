package egress

import (
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
	proxy     http.Handler
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
	w.proxy = &httputil.ReverseProxy{
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
			server := r.Request.Context().Value(serverKey{}).(*countedConn) // as the transport's are
			server.head.over = true                                         // its end may have been read ahead, too
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
		Handler:   http.HandlerFunc(func(answer http.ResponseWriter, r *http.Request) { g.serveHTTP(answer, r, w) }),
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
func (g *Gateway) serveHTTP(w http.ResponseWriter, r *http.Request, web *web) {
	protocol, connect := "http", r.Method == http.MethodConnect
	if connect {
		protocol = "connect"
	}
	conn := r.Context().Value(clientKey{}).(*webConn) // as all of the listeners'
	host, port, v := conn.asked(r)
	plain := connect && port == 80 // what is said on it is HTTP, and makes its own connections
	if v == allowed && plain {
		_, v = g.Authorize(conn.client, host, port)
	}
	if v != allowed {
		g.deny(conn.client, host, port, protocol, v)
		conn.refuse(w, v)
		return
	}
	if plain {
		web.tunnel(w, conn, host)
		return
	}
	f, done, no := g.open(r.Context(), conn.client, host, port, protocol)
	if no != nil {
		conn.refuse(w, no.verdict)
		return
	}
	defer done()
	stop := context.AfterFunc(f.ctx, func() { reset(conn) }) // also while it waits for the client
	defer stop()
	if connect {
		g.tunnel(w, conn, f)
		return
	}
	defer conn.hurry()
	web.forward(w, r, &countedConn{Conn: f.server, flow: f, metrics: g.metrics})
}

// asked is the host and port that a request is for, and why that may not be.
func (c *webConn) asked(r *http.Request) (host string, port int, no verdict) {
	name, port, err := hostOf(r)
	host, isName := schema.CanonicalHost(name)
	switch {
	case err != nil, len(r.Header) > maxLines:
		return "", port, malformed
	case name == "":
		return "", port, noName
	case !isName:
		return name, port, notAName
	case c.tunnel != "" && (r.Method == http.MethodConnect || host != c.tunnel || port != 80):
		return host, port, mismatch
	}
	return host, port, allowed
}

// refuse tells the client why, and ends the connection.
func (c *webConn) refuse(w http.ResponseWriter, no verdict) {
	status := http.StatusForbidden
	switch no {
	case malformed:
		status = http.StatusBadRequest
	case unresolvable, unreachable:
		status = http.StatusBadGateway
	}
	c.hurry()
	w.Header().Set("Connection", "close")
	http.Error(w, "sandboxctl: "+string(no), status)
}

// forward has the request answered by the host at the other end of the connection.
func (w *web) forward(answer http.ResponseWriter, r *http.Request, server *countedConn) {
	ctx := httptrace.WithClientTrace(server.flow.ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(int, textproto.MIMEHeader) error { server.head = head{}; return nil },
	})
	w.proxy.ServeHTTP(answer, r.WithContext(context.WithValue(ctx, serverKey{}, net.Conn(server))))
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
