package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// Gate is the test that a sandbox's pod begins with: what its policy allows must
// connect, and what it blocks must not, at the same address.
type Gate struct {
	// Hello is allowed, Canary is not. Both are the gateway's, so that a canary
	// that does not answer is blocked, and not merely down.
	Hello, Canary string
	// Dial makes a connection.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	Now  func() time.Time
}

const (
	// gateAttempt is how long a connection within the cluster has. A policy may
	// drop packets in silence, and then this is what each try costs.
	gateAttempt = 500 * time.Millisecond
	gatePause   = 50 * time.Millisecond
	// gateStreak is how often in a row the canary must be blocked: what programs
	// policies may do it in several steps. And how often nothing at all must answer
	// until that counts more than what was seen before: a busy node misses one.
	gateStreak = 3
)

// The ends of a gate that does not open.
var (
	ErrOpen       = errors.New("what must be blocked can be reached: the cluster does not enforce NetworkPolicy for this pod")
	ErrNoPositive = errors.New("the egress gateway does not answer, so it cannot be told whether anything is blocked")
)

// Wait returns when what must be blocked is blocked, and how long it was open
// since Wait began. When ctx ends first, the error is ErrOpen or ErrNoPositive.
func (g Gate) Wait(ctx context.Context) (open time.Duration, err error) {
	begun := g.Now()
	streak, silent := 0, 0
	verdict := ErrNoPositive
	for {
		switch {
		case g.connects(ctx, g.Canary):
			open, streak, silent, verdict = g.Now().Sub(begun), 0, 0, ErrOpen
		case g.connects(ctx, g.Hello):
			silent = 0
			if streak++; streak >= gateStreak {
				return open, nil
			}
		case ctx.Err() == nil: // else that is why nothing answered
			streak = 0
			if silent++; silent >= gateStreak {
				verdict = ErrNoPositive
			}
		}
		pause := time.NewTimer(gatePause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return open, verdict
		case <-pause.C:
		}
	}
}

// connects tells whether a connection to the address is answered. The ports say
// hello, so that one that something on the way accepts does not count.
func (g Gate) connects(ctx context.Context, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, gateAttempt)
	defer cancel()
	conn, err := g.Dial(ctx, "tcp", address)
	if err != nil {
		return false
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	_, err = fmt.Fscanln(conn, new(string))
	return err == nil
}

// ServeHello answers on the ports until ctx ends: it is what a gate tests with
// where there is no gateway.
func ServeHello(ctx context.Context, ports ...int) error {
	var open []*listening
	defer func() {
		for _, l := range open {
			l.close()
		}
	}()
	for _, port := range ports {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return fmt.Errorf("listening: %w", err)
		}
		open = append(open, startListening(ctx, listener, handleHello))
	}
	<-ctx.Done()
	return nil
}
