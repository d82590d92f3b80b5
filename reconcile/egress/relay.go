package egress

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// chunk is how much is copied at once before that is taken note of. Between two
// TCP connections the kernel moves the bytes (splice), and no buffer of ours holds
// any.
const chunk = 256 << 10

// relay copies both ways until both sides are done or the flow is cut. What was
// read of the client already goes first. That something is said is noted look
// later at the latest.
func relay(f *flow, client net.Conn, first []byte, look time.Duration, count *metrics) error {
	server := f.server
	stop := context.AfterFunc(f.ctx, func() { // unblocks both, at once
		_ = client.Close()
		_ = server.Close()
	})
	defer stop()
	if len(first) > 0 {
		if _, err := server.Write(first); err != nil {
			return err
		}
		count.bytes.WithLabelValues("out").Add(float64(len(first)))
	}
	said := func(direction string, n int64) {
		if n > 0 {
			f.note()
			count.bytes.WithLabelValues(direction).Add(float64(n))
		}
	}
	var both sync.WaitGroup
	var errs [2]error
	both.Go(func() { errs[0] = copyOneWay(server, client, look, func(n int64) { said("out", n) }) })
	both.Go(func() { errs[1] = copyOneWay(client, server, look, func(n int64) { said("in", n) }) })
	both.Wait()
	if f.ctx.Err() != nil {
		return f.ctx.Err()
	}
	return errors.Join(errs[:]...)
}

// copyOneWay copies until the source ends, which it tells the destination by
// closing that half. Any error ends both directions.
func copyOneWay(to, from net.Conn, look time.Duration, said func(n int64)) error {
	fail := func(err error) error {
		_ = to.Close()
		_ = from.Close()
		return err
	}
	for {
		// The deadline is of reading only: it interrupts the copying where there is
		// nothing to be copied, and so none is lost.
		if err := from.SetReadDeadline(time.Now().Add(look)); err != nil {
			return fail(err)
		}
		n, err := io.Copy(to, &io.LimitedReader{R: from, N: chunk})
		said(n)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
		case err != nil:
			return fail(err)
		case n < chunk: // the end
			if half, ok := to.(interface{ CloseWrite() error }); ok {
				return half.CloseWrite()
			}
			return fail(nil)
		}
	}
}
