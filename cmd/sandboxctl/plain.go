package main

import (
	"io"
	"unicode/utf8"
)

// plainWriter passes text on without what could do anything to a terminal but
// write: escape sequences, control characters other than tab and line breaks,
// and what is no UTF-8. Sequences and characters may come in pieces.
type plainWriter struct {
	out   io.Writer
	state plainState
	rest  []byte // the beginning of a character
}

type plainState int

const (
	plainText    plainState = iota
	plainEscape             // after ESC
	plainControl            // in a control sequence, up to a byte from @ to ~
	plainString             // in a string for the terminal, up to BEL or ESC \
	plainStringEscape
)

const (
	escape = 0x1b
	bell   = 0x07
)

// Write passes on what is text. It returns len(content) unless writing fails.
func (w *plainWriter) Write(content []byte) (int, error) {
	pending := append(w.rest, content...)
	var text []byte
	for len(pending) > 0 {
		r, size := rune(pending[0]), 1
		if pending[0] >= utf8.RuneSelf {
			if !utf8.FullRune(pending) {
				break
			}
			r, size = utf8.DecodeRune(pending)
		}
		if w.take(r, size) {
			text = append(text, pending[:size]...)
		} else if w.state == plainText && r == utf8.RuneError {
			text = append(text, "\uFFFD"...)
		}
		pending = pending[size:]
	}
	w.rest = append([]byte(nil), pending...)
	if _, err := w.out.Write(text); err != nil {
		return 0, err
	}
	return len(content), nil
}

// take tells whether a character is text, and notes where a sequence is.
func (w *plainWriter) take(r rune, size int) bool {
	switch w.state {
	case plainEscape:
		w.state = plainText
		switch {
		case r == '[':
			w.state = plainControl
		case r == ']' || r == 'P' || r == '_' || r == '^' || r == 'X':
			w.state = plainString
		case r >= 0x20 && r <= 0x2f: // more of them, and then the one that ends it
			w.state = plainEscape
		case r == escape:
			w.state = plainEscape
		}
		return false
	case plainControl:
		if r >= 0x40 && r <= 0x7e {
			w.state = plainText
		} else if r == escape {
			w.state = plainEscape
		} else if r == '\n' { // a sequence that was broken off must not swallow all that follows
			w.state = plainText
			return true
		}
		return false
	case plainString:
		switch {
		case r == bell || r == 0x9c:
			w.state = plainText
		case r == escape:
			w.state = plainStringEscape
		case r == '\n':
			w.state = plainText
			return true
		}
		return false
	case plainStringEscape:
		w.state = plainText
		if r != '\\' {
			w.state = plainEscape
			return w.take(r, size)
		}
		return false
	}
	switch {
	case r == escape:
		w.state = plainEscape
	case r == 0x9b: // the same in one character
		w.state = plainControl
	case r == 0x90 || r == 0x98 || r >= 0x9d && r <= 0x9f:
		w.state = plainString
	case r == '\n' || r == '\t' || r == '\r':
		return true
	case r < 0x20 || r >= 0x7f && r <= 0x9f || r == utf8.RuneError && size == 1:
	case directional(r):
	default:
		return true
	}
	return false
}

// directional tells whether a character changes the order in which others are
// shown, so that a text reads as another one.
func directional(r rune) bool {
	return r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0x200e || r == 0x200f
}

// shown returns where what a sandbox prints is to go: as it is into a file or a
// pipe, and as plain text onto a terminal.
func shown(out io.Writer) io.Writer {
	stream := unfiltered(out)
	if terminalOf(stream) != nil {
		return &plainWriter{out: stream}
	}
	return stream
}
