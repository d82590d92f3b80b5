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
		ours, theirs := net.Pipe()
		go func() {
			_, _ = theirs.Write([]byte(address + "\n")) // whoever reads it tells
			_ = theirs.Close()
		}()
		return ours, nil
	}}
	if _, err := gate.Wait(ctx); !errors.Is(err, egress.ErrOpen) {
		t.Errorf("got %v, want %v", err, egress.ErrOpen)
	}
}
