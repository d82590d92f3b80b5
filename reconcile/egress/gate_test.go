package egress_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/agentpane/sandboxctl/reconcile/egress"
)

// TestGateKeepsItsVerdict: that the time is over while it tries once more says
// nothing about what it has seen.
func TestGateKeepsItsVerdict(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	tried := 0
	gate := egress.Gate{Hello: "hello", Canary: "canary", Now: time.Now, Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
		if tried++; tried > 1 {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return hello(address), nil
	}}
	if _, err := gate.Wait(ctx); !errors.Is(err, egress.ErrOpen) {
		t.Errorf("got %v, want %v", err, egress.ErrOpen)
	}
}

// TestGateThatMissesAnAnswer: what was open stays so for as long as a silence can
// be a busy node's, and no longer.
func TestGateThatMissesAnAnswer(t *testing.T) {
	for silences, want := range map[int]error{1: egress.ErrOpen, 2: egress.ErrOpen, 3: egress.ErrNoPositive} {
		ctx, cancel := context.WithCancel(t.Context())
		looks := 0
		gate := egress.Gate{Hello: "hello", Canary: "canary", Now: time.Now, Dial: func(_ context.Context, _, address string) (net.Conn, error) {
			if address == "canary" { // which each look tries first
				looks++
			}
			switch {
			case looks == 1:
				return hello(address), nil
			case looks > 1+silences:
				cancel()
			}
			return nil, errors.New("no answer")
		}}
		if _, err := gate.Wait(ctx); !errors.Is(err, want) {
			t.Errorf("after %d looks without an answer: got %v, want %v", silences, err, want)
		}
	}
}

// hello is a connection on which something is said.
func hello(text string) net.Conn {
	ours, theirs := net.Pipe()
	go func() {
		_, _ = theirs.Write([]byte(text + "\n")) // whoever reads it tells
		_ = theirs.Close()
	}()
	return ours
}
