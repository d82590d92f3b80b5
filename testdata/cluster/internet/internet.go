// Package internet is what the test cluster sees of the outside: a few hosts
// with HTTP, HTTPS and DNS on documentation addresses (RFC 5737), and a fake
// cloud metadata service. Nothing behind it is real, and it reaches nothing.
//
// A server answers with what it saw of the request, so that a test can tell
// which one it reached, and by which name.
package internet

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
)

// The addresses that the internet answers on, all on one interface.
const (
	// Gateway is the way from the node to all of it.
	Gateway = "198.51.100.1"
	// Allowed and Denied are two hosts that differ in nothing but the
	// address; what tests call them is their purpose.
	Allowed = "198.51.100.10"
	Denied  = "198.51.100.20"
	// Resolver answers DNS, on UDP and TCP.
	Resolver = "198.51.100.53"
	// Metadata is where clouds serve credentials to whoever asks.
	Metadata = "169.254.169.254"
	// Private is a host like the others at an address that is nobody's on the
	// internet: what names must not lead to, unless that is wanted.
	Private = "10.99.0.10"
	// Git serves repositories, by HTTPS and SSH; Packages is a Debian
	// repository with one package, by HTTPS.
	Git      = "198.51.100.30"
	Packages = "198.51.100.40"
)

// Addresses are all addresses of the internet's interface.
func Addresses() []string {
	return append([]string{Gateway, Allowed, Denied, Resolver, Metadata, Private, Git, Packages}, many()...)
}

// Ports of the HTTP servers: 8080 and 8443 stand for a port that a policy
// does not name.
var (
	plainPorts = []int{80, 8080}
	tlsPorts   = []int{443, 8443}
)

// manyPort is a port that every address serves.
const manyPort = 8082

// Answer is what every HTTP and HTTPS server replies, as JSON.
type Answer struct {
	// Server is the address and port that was reached, Host the Host header
	// and ServerName the TLS server name of the request.
	Server     string `json:"server"`
	Host       string `json:"host"`
	ServerName string `json:"serverName,omitempty"`
	Path       string `json:"path"`
}

// Serve serves until ctx ends; certificate is presented for every name. The
// addresses must be on an interface already.
func Serve(ctx context.Context, certificate tls.Certificate) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, address := range []string{Allowed, Denied, Private} {
		for _, port := range plainPorts {
			group.Go(func() error { return serveHTTP(ctx, address, port, nil) })
		}
		for _, port := range tlsPorts {
			config := &tls.Config{Certificates: []tls.Certificate{certificate}}
			group.Go(func() error { return serveHTTP(ctx, address, port, config) })
		}
	}
	group.Go(func() error { return serveHTTP(ctx, Metadata, 80, nil) })
	group.Go(func() error { return serveHTTP(ctx, "0.0.0.0", manyPort, nil) })
	// What DNS over HTTPS and over TLS would be, as far as a policy sees it.
	for _, port := range []int{443, 853} {
		config := &tls.Config{Certificates: []tls.Certificate{certificate}}
		group.Go(func() error { return serveHTTP(ctx, Resolver, port, config) })
	}
	group.Go(func() error { return serveQuestions(ctx) })
	group.Go(func() error { return serveGit(ctx, certificate) })
	group.Go(func() error { return serveSSH(ctx) })
	group.Go(func() error { return servePackages(ctx, certificate) })
	group.Go(func() error { return serveUDP(ctx, Allowed, 443) }) // where QUIC would be
	for _, network := range []string{"udp", "tcp"} {
		group.Go(func() error { return serveDNS(ctx, network) })
	}
	return group.Wait()
}

func serveHTTP(ctx context.Context, address string, port int, config *tls.Config) error {
	return serveHandler(ctx, address, port, config, nil)
}

// serveHandler serves a handler; the answer that says what was seen for nil.
func serveHandler(ctx context.Context, address string, port int, config *tls.Config, handler http.Handler) error {
	endpoint := netip.AddrPortFrom(netip.MustParseAddr(address), uint16(port)).String()
	listener, err := net.Listen("tcp", endpoint)
	if err != nil {
		return fmt.Errorf("serving HTTP: %w", err)
	}
	if config != nil {
		listener = tls.NewListener(listener, config)
	}
	if handler == nil {
		handler = seen(endpoint)
	}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: handler}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// seen answers with what it saw of the request. Below /slow it goes on to say
// something every second, for a test to have a connection that lives.
func seen(endpoint string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := Answer{Server: endpoint, Host: r.Host, Path: r.URL.Path}
		if r.TLS != nil {
			answer.ServerName = r.TLS.ServerName
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer) // the client is gone: nothing to tell it
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for r.URL.Path == "/slow" {
			if err := http.NewResponseController(w).Flush(); err != nil {
				return
			}
			select {
			case <-r.Context().Done():
				return
			case <-tick.C:
				_, _ = io.WriteString(w, "still here\n") // as above
			}
		}
	})
}

func serveUDP(ctx context.Context, address string, port int) error {
	conn, err := net.ListenPacket("udp", netip.AddrPortFrom(netip.MustParseAddr(address), uint16(port)).String())
	if err != nil {
		return fmt.Errorf("serving UDP: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	content := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(content)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		_, _ = conn.WriteTo(content[:n], from) // who asked can ask again
	}
}

func serveDNS(ctx context.Context, network string) error {
	server := &dns.Server{Addr: net.JoinHostPort(Resolver, "53"), Net: network, Handler: dns.HandlerFunc(answerDNS)}
	stop := context.AfterFunc(ctx, func() { _ = server.Shutdown() })
	defer stop()
	if err := server.ListenAndServe(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serving DNS: %w", err)
	}
	return nil
}
