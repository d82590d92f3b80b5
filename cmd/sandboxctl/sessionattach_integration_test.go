//go:build integration

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/agentpane/sandboxctl/reconcile/audit"
	"github.com/agentpane/sandboxctl/reconcile/clustertest"
)

// breakable passes connections on to the API server, until it breaks them.
type breakable struct {
	listener net.Listener
	target   string
	mutex    sync.Mutex // protects conns and refusing
	conns    map[net.Conn]bool
	refusing bool
	// limits are how many bytes go up and down over the exec connections that
	// come next, in turn, before they break; without one they do not.
	limits []byteLimits
	wait   sync.WaitGroup
}

type byteLimits struct{ up, down int64 }

const noLimit = 1 << 40

// limitsFor are those of a connection that begins with that hello: one that
// offers HTTP/2 is for everything but exec.
func (b *breakable) limitsFor(hello []byte) byteLimits {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if bytes.Contains(hello, []byte("\x02h2")) || len(b.limits) == 0 {
		return byteLimits{noLimit, noLimit}
	}
	next := b.limits[0]
	b.limits = b.limits[1:]
	return next
}

func newBreakable(t *testing.T, target string) *breakable {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &breakable{listener: listener, target: target, conns: map[net.Conn]bool{}}
	b.wait.Go(b.serve)
	t.Cleanup(func() {
		_ = listener.Close()
		b.cut(true)
		b.wait.Wait()
	})
	return b
}

func (b *breakable) serve() {
	for {
		client, err := b.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", b.target)
		if err != nil || !b.keep(client, server) {
			_ = client.Close()
			continue
		}
		b.wait.Go(func() { b.pass(client, server) })
	}
}

// pass passes on what is said, up to the connection's limits.
func (b *breakable) pass(client, server net.Conn) {
	hello := make([]byte, 4096)
	n, _ := client.Read(hello) // what cannot be read ends what follows
	limits := b.limitsFor(hello[:n])
	said := io.MultiReader(bytes.NewReader(hello[:n]), client)
	var wait sync.WaitGroup
	wait.Go(func() {
		_, _ = io.Copy(server, io.LimitReader(said, limits.up)) // ends when either is closed
		_, _ = client.Close(), server.Close()
	})
	wait.Go(func() {
		_, _ = io.Copy(client, io.LimitReader(server, limits.down))
		_, _ = client.Close(), server.Close()
	})
	wait.Wait()
}

func (b *breakable) keep(conns ...net.Conn) bool {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	for _, conn := range conns {
		b.conns[conn] = true
	}
	return !b.refusing
}

// cut breaks all connections, and refuses new ones or not.
func (b *breakable) cut(refuse bool) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.refusing = refuse
	for conn := range b.conns {
		_ = conn.Close()
	}
	clear(b.conns)
}

// through writes a kubeconfig whose server is behind the proxy.
func through(t *testing.T) (*breakable, string) {
	t.Helper()
	config, err := clientcmd.LoadFromFile(kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	cluster := config.Clusters[config.Contexts[config.CurrentContext].Cluster]
	host := strings.TrimPrefix(cluster.Server, "https://")
	proxy := newBreakable(t, host)
	cluster.TLSServerName, _, _ = net.SplitHostPort(host)
	cluster.Server = "https://" + proxy.listener.Addr().String()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return proxy, path
}

// TestSessionAttach drives attach as a person would: on a terminal.
func TestSessionAttach(t *testing.T) {
	s := newShell(t)
	s.declareSessions("      agent: {}\n")
	s.apply()
	program := filepath.Join(t.TempDir(), "sandboxctl")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("building the program: %v\n%s", err, out)
	}
	proxy, config := through(t)
	log, attempts := filepath.Join(t.TempDir(), "audit.log"), 0
	attach := func(t *testing.T, width, height uint16) *pty {
		attempts++
		return startOnTerminal(t, width, height, program, "session", "attach", "--file", s.file, "--kubeconfig", config, "--audit-log", log, "api", "agent")
	}
	attached := func(t *testing.T, want int) {
		t.Helper()
		clustertest.Eventually(t, fmt.Sprintf("%d are attached", want), func(context.Context) bool { return s.sessions()["agent"].Attached == want })
	}

	t.Run("type, resize, detach, attach again", func(t *testing.T) {
		p := attach(t, 100, 30)
		attached(t, 1) // what is typed before does not get there
		p.typeKeys("stty size; echo typed-$((40+2))\r")
		p.expect("typed-42")
		p.resize(120, 40)
		clustertest.Eventually(t, "the window has the new size", func(context.Context) bool {
			return s.inside("tmux display-message -p -t =agent: '#{window_width}x#{window_height}'") == "120x39\n" // a line is tmux's status
		})
		p.typeKeys("\x02d")
		p.expect("[detached (from session agent)]")
		if code := p.wait(); code != 0 {
			t.Errorf("leaving it: %d", code)
		}
		attached(t, 0)
		p = attach(t, 80, 24)
		p.expect("typed-42") // it is still there
		p.typeKeys("\r~.")
		p.expect("disconnected from session agent, which goes on")
		if code := p.wait(); code != 0 {
			t.Errorf("disconnecting: %d", code)
		}
		attached(t, 0)
	})
	t.Run("a lost connection", func(t *testing.T) {
		p := attach(t, 100, 30)
		attached(t, 1)
		p.typeKeys("echo before-$((40+2))\r")
		p.expect("before-42")
		proxy.cut(false)
		p.expect("the connection to session agent is lost")
		p.expect("before-42")
		p.typeKeys("echo after-$((40+3))\r")
		p.expect("after-43")
		attached(t, 1)
		proxy.cut(true)
		p.expect("the connection to session agent is lost")
		p.typeKeys("\x03")
		if code := p.wait(); code != 0 {
			t.Errorf("giving up: %d", code)
		}
		proxy.cut(false)
	})
	t.Run("the end of the session", func(t *testing.T) {
		p := attach(t, 100, 30)
		p.expect("after-43") // not by their number: what was attached when the connection was refused still is
		p.typeKeys("echo ready-$((40+2))\r")
		p.expect("ready-42")
		s.expect(0, "", "", "session", "kill", "api", "agent")
		p.expect("[exited]")
		if code := p.wait(); code != 0 {
			t.Errorf("the session has ended: %d", code)
		}
		p = attach(t, 100, 30)
		p.expect("K8S_TMUX_SESSION_NOT_FOUND: sandbox api has no session agent")
		if code := p.wait(); code != 1 {
			t.Errorf("there is no session: %d", code)
		}
	})
	records := auditRecords(t, log)
	for _, record := range records {
		if record.Event != audit.SessionCommand || record.SandboxID != "api" || record.Metadata["session"] != "agent" || record.Metadata["command"] != "attach-session" {
			t.Errorf("attach is recorded as %+v", record)
		}
	}
	if len(records) != attempts {
		t.Errorf("%d attempts are recorded %d times", attempts, len(records))
	}
}
