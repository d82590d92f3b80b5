package egress

import (
	"net"
	"net/netip"
)

// admit gives a connection a place, where it is a sandbox's and there is one left.
// free must be called when it is over.
func (g *Gateway) admit(conn net.Conn, protocol string, port int) (client netip.Addr, free func(), ok bool) {
	client = clientOf(conn.RemoteAddr())
	if _, no := g.Who(client); no != allowed {
		g.deny(client, "", port, protocol, no)
		return client, nil, false
	}
	if free, ok = g.connections.hold(client); !ok {
		g.deny(client, "", port, protocol, tooMany)
	}
	return client, free, ok
}

// admitting is a listener whose connections have their place from the moment that
// they are there until they are closed, whatever they say. Those that get none are
// reset.
type admitting struct {
	*net.TCPListener
	gateway  *Gateway
	protocol string
	port     int // as far as it is known before anything is said
}

// Accept returns the next *admitted.
func (a *admitting) Accept() (net.Conn, error) {
	for {
		conn, err := a.AcceptTCP()
		if err != nil {
			return nil, err
		}
		client, free, ok := a.gateway.admit(conn, a.protocol, a.port)
		if !ok {
			reset(conn)
			continue
		}
		return &admitted{conn, client, free}, nil
	}
}

// admitted is a client's connection with its place.
type admitted struct {
	*net.TCPConn
	client netip.Addr
	free   func()
}

// Close also gives the place back.
func (c *admitted) Close() error {
	defer c.free()
	return c.TCPConn.Close()
}
