package main

import (
	"fmt"
	"io"
	"os"

	"github.com/charmbracelet/colorprofile"
	"golang.org/x/term"
	"k8s.io/client-go/tools/remotecommand"
)

// unfiltered returns the stream behind a writer that changes colours: what a
// sandbox's command prints may be anything, also a file.
func unfiltered(out io.Writer) io.Writer {
	if noting, ok := out.(*noting); ok {
		out = noting.Writer
	}
	if filter, ok := out.(*colorprofile.Writer); ok {
		return filter.Forward
	}
	return out
}

// terminalOf returns the stream where it is a terminal, or nil.
func terminalOf(stream any) *os.File {
	file, ok := stream.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return nil
	}
	return file
}

// onTerminal runs something while the terminal passes on every key, and leaves
// it as it was.
func onTerminal(terminal *os.File, run func(*terminalSizes)) (err error) {
	before, err := term.MakeRaw(int(terminal.Fd()))
	if err != nil {
		return fmt.Errorf("setting up the terminal: %w", err)
	}
	changes, stop := windowChanges()
	sizes := &terminalSizes{terminal: terminal, changes: changes, first: true, done: make(chan struct{})}
	defer func() {
		sizes.end()
		stop()
		err = term.Restore(int(terminal.Fd()), before)
	}()
	run(sizes)
	return nil
}

// terminalSizes tells the size of a terminal, first and whenever it changes.
type terminalSizes struct {
	terminal *os.File
	changes  <-chan os.Signal
	first    bool
	done     chan struct{}
}

var _ remotecommand.TerminalSizeQueue = (*terminalSizes)(nil)

// again returns the sizes for another connection, which begin with the first.
func (s *terminalSizes) again() *terminalSizes {
	return &terminalSizes{terminal: s.terminal, changes: s.changes, first: true, done: make(chan struct{})}
}

// end ends the sizes.
func (s *terminalSizes) end() { close(s.done) }

// Next waits for the next size; nil is the end.
func (s *terminalSizes) Next() *remotecommand.TerminalSize {
	if !s.first {
		select {
		case <-s.changes:
		case <-s.done:
			return nil
		}
	}
	s.first = false
	width, height, err := term.GetSize(int(s.terminal.Fd()))
	if err != nil {
		return nil
	}
	return &remotecommand.TerminalSize{Width: uint16(width), Height: uint16(height)}
}
