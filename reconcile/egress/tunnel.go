package egress

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"time"
)

// establish answers CONNECT. What the client has said already is in the buffer.
func (c *webConn) establish(w http.ResponseWriter) (buffered *bufio.Reader, ok bool) {
	_, both, err := http.NewResponseController(w).Hijack() // it is c
	if err != nil {
		http.Error(w, "sandboxctl: this connection cannot be a tunnel", http.StatusInternalServerError)
		return nil, false
	}
	_ = c.SetDeadline(time.Now().Add(c.gateway.options.Limits.Greeting))
	if _, err := io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		reset(c)
		return nil, false
	}
	return both.Reader, true
}

// tunnel is what CONNECT asks for. On one to port 443, TLS must be for the host that
// it was opened for.
func (g *Gateway) tunnel(w http.ResponseWriter, conn *webConn, f *flow) {
	buffered, ok := conn.establish(w)
	if !ok {
		return
	}
	defer reset(conn)
	client := &bufferedConn{conn, buffered}
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
	if rest := buffered.Buffered(); rest > 0 {
		more, _ := buffered.Peek(rest) // it is there
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

// tunnel is what CONNECT to port 80 asks for. Each request on it says whom it is
// for, and is served as any other, if that is the host.
func (w *web) tunnel(answer http.ResponseWriter, conn *webConn, host string) {
	buffered, ok := conn.establish(answer)
	if !ok {
		return
	}
	_ = conn.SetDeadline(time.Time{}) // from here on, the server sets them
	ahead, _ := buffered.Peek(buffered.Buffered())
	single := make(single, 1)
	single <- &webConn{admitted: conn.admitted, gateway: conn.gateway, port: 80, tunnel: host, ahead: bytes.Clone(ahead)}
	close(single)
	_ = w.server.Serve(single) // which only begins with it
}

// single is a listener with one connection.
type single chan net.Conn

// Accept returns the connection, and io.EOF when it is asked again.
func (s single) Accept() (net.Conn, error) {
	if conn, ok := <-s; ok {
		return conn, nil
	}
	return nil, io.EOF
}

// Close closes the connection if the server, which has ended, does not take it.
func (s single) Close() error {
	if conn, ok := <-s; ok {
		return conn.Close()
	}
	return nil
}

// Addr is nobody's.
func (s single) Addr() net.Addr { return nil }
