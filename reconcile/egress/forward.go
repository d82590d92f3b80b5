package egress

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"

	"github.com/agentpane/sandboxctl/render"
)

// forwards are the ports with one fixed destination each. One goroutine has them.
type forwards struct {
	gateway *Gateway
	open    map[int32]forwarding
	ending  sync.WaitGroup // those that have been stopped, whose connections end yet
}

type forwarding struct {
	render.Forward
	*listening
}

// update opens the ports of what is wanted, and closes those of what no longer is.
// A port whose destination is another one now is opened anew.
func (f *forwards) update(ctx, serving context.Context, wanted []render.Forward) error {
	for port, open := range f.open {
		if !slices.Contains(wanted, open.Forward) {
			f.stop(port, open)
		}
	}
	var errs []error
	for _, each := range wanted {
		if _, open := f.open[each.Listen]; open {
			continue
		}
		listener, err := f.gateway.listen(ctx, each.Listen)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		f.open[each.Listen] = forwarding{each, startListening(serving, listener, func(ctx context.Context, conn net.Conn) {
			f.gateway.handleForward(ctx, conn, each)
		})}
	}
	return errors.Join(errs...)
}

// stop takes no further connection on the port: those that there are end with what
// allows them.
func (f *forwards) stop(port int32, open forwarding) {
	open.stop()
	f.ending.Go(open.close)
	delete(f.open, port)
}

// close stops all, and waits until their connections have ended.
func (f *forwards) close() {
	for port, open := range f.open {
		f.stop(port, open)
	}
	f.ending.Wait()
}

// handleForward forwards a connection to where its port leads.
func (g *Gateway) handleForward(ctx context.Context, conn net.Conn, to render.Forward) {
	defer reset(conn)
	const protocol = "tcp"
	client, free, ok := g.greet(conn, protocol, int(to.Port))
	if !ok {
		return
	}
	defer free()
	g.forward(ctx, conn, client, to.Host, int(to.Port), protocol, nil)
}
