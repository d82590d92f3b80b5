//go:build integration

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pty is a terminal with a program on it.
type pty struct {
	*testing.T
	master *os.File
	cmd    *exec.Cmd
	done   chan struct{}
	mutex  sync.Mutex // protects shown
	shown  bytes.Buffer
	news   chan struct{} // tells that more was shown
}

// startOnTerminal runs a program on a terminal of that size.
func startOnTerminal(t *testing.T, width, height uint16, name string, args ...string) *pty {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &pty{T: t, master: master, done: make(chan struct{}), news: make(chan struct{}, 1)}
	p.resize(width, height)
	p.cmd = exec.Command(name, args...)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = slave, slave, slave
	p.cmd.Env = append(os.Environ(), "TERM=xterm-kitty") // which no image knows
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = slave.Close() // the program has its own
	go p.read()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // has ended, as a rule
		_ = master.Close()
		<-p.done
	})
	return p
}

func (p *pty) read() {
	defer close(p.done)
	buffer := make([]byte, 4096)
	for {
		n, err := p.master.Read(buffer)
		p.mutex.Lock()
		p.shown.Write(buffer[:n])
		p.mutex.Unlock()
		select {
		case p.news <- struct{}{}:
		default:
		}
		if err != nil { // the program has ended
			return
		}
	}
}

func (p *pty) resize(width, height uint16) {
	p.Helper()
	if err := unix.IoctlSetWinsize(int(p.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height}); err != nil {
		p.Fatal(err)
	}
}

func (p *pty) typeKeys(keys string) {
	p.Helper()
	if _, err := p.master.WriteString(keys); err != nil {
		p.Fatal(err)
	}
}

// expect waits until that is shown, and forgets all up to it.
func (p *pty) expect(text string) {
	p.Helper()
	timeout := time.After(60 * time.Second)
	for {
		p.mutex.Lock()
		before, _, found := strings.Cut(p.shown.String(), text)
		if found {
			p.shown.Next(len(before) + len(text))
		}
		shown := p.shown.String()
		p.mutex.Unlock()
		if found {
			return
		}
		select {
		case <-p.news:
		case <-timeout:
			p.Fatalf("%q is not shown, but %q", text, shown)
		}
	}
}

// wait waits for the program's end and returns its exit code.
func (p *pty) wait() int {
	p.Helper()
	ended := make(chan error, 1)
	go func() { ended <- p.cmd.Wait() }()
	select {
	case <-ended:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(60 * time.Second):
		p.mutex.Lock()
		defer p.mutex.Unlock()
		p.Fatalf("it does not end; shown is %q", p.shown.String())
		return -1
	}
}
