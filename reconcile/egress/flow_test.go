package egress

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestSlowStreamIsNotIdle: a stream in one direction only lives for as long as
// something comes, however slowly, and is cut once nothing does.
func TestSlowStreamIsNotIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := Limits{Idle: time.Hour}
		ctx, cancel := context.WithCancel(t.Context())
		client, theClient := net.Pipe()
		server, theServer := net.Pipe()
		all, f := newFlows(), &flow{server: server}
		remove := all.add(ctx, f)
		var running sync.WaitGroup
		running.Go(func() { _ = all.cutIdle(ctx, limits) })
		running.Go(func() { _, _ = io.Copy(io.Discard, theClient) })
		ended := make(chan error, 1)
		running.Go(func() { ended <- relay(f, client, nil, limits.look(), newMetrics(nil)) })
		for range 20 {
			<-time.After(limits.Idle * 9 / 10) // by the bubble's clock, which waits for nothing
			if _, err := theServer.Write([]byte{'.'}); err != nil {
				t.Fatal("it was cut:", err)
			}
		}
		last := time.Now()
		if err := <-ended; err == nil {
			t.Error("it ended by itself")
		}
		if quiet := time.Since(last); quiet < limits.Idle || quiet > 2*limits.Idle {
			t.Errorf("it was cut after %s, want some more than %s", quiet, limits.Idle)
		}
		remove()
		cancel()
		running.Wait()
	})
}
