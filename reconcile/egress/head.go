package egress

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"time"
)

// maxHeader bounds the head of a request or an answer, maxLines its lines after the
// first: each is kept by itself, and a short one takes many times its length. The
// bounds are Node's of a head, and Apache's and Python's of its fields.
const maxHeader, maxLines = 16 << 10, 100

var errLines = errors.New("the head has too many lines")

// head counts the lines of a head while it is read.
type head struct {
	lines int
	begun bool  // a further line
	over  bool  // what comes is none of it
	err   error // there are too many: nothing is to be read any more
}

// count takes note of what was read, up to the blank line that ends the head, and
// tells how much of it there may be. Before the first line there may be blank ones.
func (h *head) count(read []byte) (good int) {
	for rest := read; len(rest) > 0 && !h.over; {
		line, further, ended := bytes.Cut(rest, []byte{'\n'})
		h.begun = h.begun || len(bytes.TrimSuffix(line, []byte{'\r'})) > 0
		if h.begun && h.lines > maxLines { // the first is none of them
			h.err = errLines
			return len(read) - len(rest)
		}
		rest = further
		if !ended {
			break
		}
		h.over = !h.begun && h.lines > 0
		if h.begun {
			h.lines++
		}
		h.begun = false
	}
	return len(read)
}

// webListener is a listener of the HTTP server.
type webListener struct{ *admitting }

// Accept returns the next *webConn.
func (l webListener) Accept() (net.Conn, error) {
	conn, err := l.admitting.Accept()
	if err != nil {
		return nil, err
	}
	return &webConn{admitted: conn.(*admitted), gateway: l.gateway, port: l.port}, nil
}

// webConn is a client's connection to the HTTP server, which counts the lines of
// each head. What the server has read ahead of one, with the body before it, is
// not counted: serveHTTP looks at what came of it. The server never reads twice at
// once, nor while the head begins or ends.
type webConn struct {
	*admitted
	gateway *Gateway
	port    int
	head    head
	ahead   []byte // what was read of it already
	tunnel  string // the host that CONNECT has opened it for; empty where it is none
}

func (c *webConn) Read(content []byte) (int, error) {
	if c.head.err != nil {
		return 0, c.head.err
	}
	var err error
	n := copy(content, c.ahead)
	if c.ahead = c.ahead[n:]; n == 0 {
		n, err = c.admitted.Read(content)
	}
	if n = c.head.count(content[:n]); c.head.err != nil {
		c.gateway.deny(c.client, "", c.port, "http", malformed)
		return n, c.head.err
	}
	return n, err
}

// hurry gives what is left of a request's body a time to come.
func (c *webConn) hurry() {
	_ = c.SetReadDeadline(time.Now().Add(c.gateway.options.Limits.Greeting))
}

// heads tells a *webConn when a head ends, and when the next one is to come: once
// the body between them was read.
func heads(conn net.Conn, state http.ConnState) {
	switch c := conn.(*webConn); state {
	case http.StateActive:
		c.head.over = true
	case http.StateIdle:
		c.head = head{}
	}
}
