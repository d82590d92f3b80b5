package main

import (
	"context"
	"errors"
	"io"
	"sync"
)

// errDisconnected is the cause of an end that was asked for at the keyboard.
var errDisconnected = errors.New("disconnected")

// keyboard hands on what is typed to whatever connection there is at the time,
// and finds in it what is meant for this program: "~." after Enter, and Ctrl-C
// while there is no connection.
type keyboard struct {
	cancel context.CancelCauseFunc
	// typed holds what a connection that hangs has not taken yet.
	typed chan []byte
	mutex sync.Mutex // protects readers
	// readers is how many connections take what is typed: one or none.
	readers int
	escapes escapes
}

// newKeyboard begins to read. A terminal that is being read cannot be
// interrupted, so it goes on until the process ends; nobody else reads the
// terminal after that.
func newKeyboard(in io.Reader, cancel context.CancelCauseFunc) *keyboard {
	k := &keyboard{cancel: cancel, typed: make(chan []byte, typedLimit), escapes: escapes{lineStart: true}}
	go func() {
		defer close(k.typed)
		buffer := make([]byte, 4096)
		for {
			n, err := in.Read(buffer)
			if n > 0 && !k.take(buffer[:n]) {
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return k
}

// take hands typed keys on; false when they ask for the end.
func (k *keyboard) take(keys []byte) bool {
	rest, disconnect := k.escapes.filter(keys)
	k.mutex.Lock()
	idle := k.readers == 0
	k.mutex.Unlock()
	for _, key := range rest {
		disconnect = disconnect || idle && key == interrupt
	}
	if len(rest) > 0 && !idle {
		select {
		case k.typed <- rest:
		default: // the connection hangs; the keys that end it must be seen all the same
		}
	}
	if disconnect {
		k.cancel(errDisconnected)
	}
	return !disconnect
}

// typedLimit is how many keys, or pastes, are held for a connection.
const typedLimit = 1024

const interrupt = 3 // Ctrl-C

// reader returns what one connection reads: what is typed from now on.
func (k *keyboard) reader() *keyReader {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	k.readers++
	for len(k.typed) > 0 { // was for a connection that is gone
		<-k.typed
	}
	return &keyReader{keyboard: k, done: make(chan struct{})}
}

type keyReader struct {
	keyboard *keyboard
	done     chan struct{}
	rest     []byte
}

// close ends the reader: what is typed from now on is another's.
func (r *keyReader) close() {
	close(r.done)
	r.keyboard.mutex.Lock()
	defer r.keyboard.mutex.Unlock()
	r.keyboard.readers--
}

func (r *keyReader) Read(content []byte) (int, error) {
	if len(r.rest) == 0 {
		select {
		case <-r.done:
			return 0, io.EOF
		case keys, open := <-r.keyboard.typed:
			if !open {
				<-r.done // the end of the keyboard ends no session
				return 0, io.EOF
			}
			r.rest = keys
		}
	}
	n := copy(content, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// escapes finds "~." and "~~" at the beginning of a line, as ssh does.
type escapes struct {
	lineStart, tilde bool
}

// filter returns the keys without what is meant for this program.
func (e *escapes) filter(keys []byte) (rest []byte, disconnect bool) {
	for _, key := range keys {
		switch {
		case e.tilde && key == '.':
			return rest, true
		case e.tilde:
			e.tilde, e.lineStart = false, false
			if key != '~' {
				rest = append(rest, '~')
			}
			rest = append(rest, key)
			e.lineStart = key == '\r' || key == '\n'
		case e.lineStart && key == '~':
			e.tilde = true
		default:
			e.lineStart = key == '\r' || key == '\n'
			rest = append(rest, key)
		}
	}
	return rest, false
}
