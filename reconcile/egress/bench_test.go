//go:build bench && linux

package egress_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/agentpane/sandboxctl/reconcile/egress"
	"github.com/agentpane/sandboxctl/render"
)

// fresh makes a TLS connection, one request on it, and ends it.
func fresh(b *testing.B, dial func() (net.Conn, error)) time.Duration {
	b.Helper()
	begun := time.Now()
	conn, err := dial()
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	secure := tls.Client(conn, &tls.Config{ServerName: "allowed.test", InsecureSkipVerify: true})
	if _, err := exchange(secure, "GET / HTTP/1.1\r\nHost: allowed.test\r\nConnection: close\r\n\r\n"); err != nil {
		b.Fatal(err)
	}
	return time.Since(begun)
}

// BenchmarkFreshHTTPS compares a fresh HTTPS request through the gateway with one
// that goes directly, one after the other: what the gateway adds.
func BenchmarkFreshHTTPS(b *testing.B) {
	r := newRig(b, egress.DefaultLimits())
	var direct, through time.Duration
	for b.Loop() {
		direct += fresh(b, func() (net.Conn, error) { return net.Dial("tcp", r.tls.Listener.Addr().String()) })
		through += fresh(b, func() (net.Conn, error) { return r.dial(sandbox, render.TLSPort) })
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(direct.Microseconds())/float64(b.N)/1000, "ms/direct")
	b.ReportMetric(float64(through.Microseconds())/float64(b.N)/1000, "ms/gateway")
	b.ReportMetric(float64((through-direct).Microseconds())/float64(b.N)/1000, "ms-added")
}

// BenchmarkThroughput moves 64 MiB over one connection, ten times.
func BenchmarkThroughput(b *testing.B) {
	const size, times = 64 << 20, 10
	r := newRig(b, egress.DefaultLimits())
	begun := time.Now()
	for range times {
		conn, err := r.dial(sandbox, 22222)
		if err != nil {
			b.Fatal(err)
		}
		fmt.Fprintf(conn, "GET /%d HTTP/1.0\r\n\r\n", size)
		if n, err := io.Copy(io.Discard, conn); err != nil || n < size {
			b.Fatal(n, err)
		}
		conn.Close()
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(size*times/(1<<20)/time.Since(begun).Seconds(), "MiB/s")
}

// BenchmarkMemoryOf1000Connections holds 1000 connections through the gateway.
// The memory is that of the whole process, which is the client and the server
// as well.
func BenchmarkMemoryOf1000Connections(b *testing.B) {
	r := newRig(b, egress.Limits{Connections: 2000, PerSandbox: 2000, Idle: time.Hour, Greeting: time.Minute})
	memory := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapInuse + stats.StackInuse
	}
	before := memory()
	var conns []net.Conn
	for range 1000 {
		conn, err := r.dial(sandbox, 22222)
		if err != nil {
			b.Fatal(err)
		}
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			b.Fatal(err)
		}
		conns = append(conns, conn)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(memory()-before)/(1<<20), "MiB/1000")
	for _, conn := range conns {
		conn.Close()
	}
}
