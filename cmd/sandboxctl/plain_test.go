package main

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
)

// TestPlainWriter: nothing that could do something to a terminal gets there,
// however it comes in pieces, and text does as it is.
func TestPlainWriter(t *testing.T) {
	for name, test := range map[string][2]string{
		"text":                    {"a\tb\r\né 世 🙂\n", "a\tb\r\né 世 🙂\n"},
		"colours":                 {"a\x1b[1;31mred\x1b[0mb", "aredb"},
		"a title":                 {"a\x1b]0;title\x07b\x1b]2;x\x1b\\c", "abc"},
		"the clipboard":           {"a\x1b]52;c;cm0gLXJmIC8=\x07b", "ab"},
		"a link":                  {"\x1b]8;;http://x\x1b\\text\x1b]8;;\x1b\\", "text"},
		"other strings":           {"a\x1bPq\x1b\\b\x1b_x\x1b\\c\x1b^x\x1b\\d\x1bXx\x1b\\e", "abcde"},
		"in one character":        {"a\u009b2Jb\u009d0;x\u009cc\u0090x\u009cd", "abcd"},
		"a character set":         {"a\x1b(0b\x1b#8c", "abc"},
		"single sequences":        {"a\x1bcb\x1b7\x1b=c", "abc"},
		"control characters":      {"a\x00\x07\x08\x0b\x0c\x0e\x7f\u0085b", "ab"},
		"no UTF-8":                {"a\xffb\xc3\x28\xe2\x82", "a\uFFFDb\uFFFD("},
		"a sequence without end":  {"a\x1b[31", "a"},
		"a string without end":    {"a\x1b]0;x\nb", "a\nb"},
		"an escape in a sequence": {"a\x1b[3\x1b[1mb", "ab"},
		"an escape in a string":   {"a\x1b]0;x\x1b[1mb", "ab"},
		"the direction":           {"a\u202eb\u2066c\u200fd", "abcd"},
	} {
		for size := 1; size <= len(test[0]); size++ {
			var out bytes.Buffer
			w := &plainWriter{out: &out}
			for rest := []byte(test[0]); len(rest) > 0; rest = rest[min(size, len(rest)):] {
				if n, err := w.Write(rest[:min(size, len(rest))]); err != nil || n != min(size, len(rest)) {
					t.Fatal(n, err)
				}
			}
			if out.String() != test[1] {
				t.Fatalf("%s, in pieces of %d: %q, not %q", name, size, out.String(), test[1])
			}
		}
	}
}

func FuzzPlainWriter(f *testing.F) {
	f.Add("a\x1b[1mb\xff", 2)
	f.Fuzz(func(t *testing.T, text string, size int) {
		size = max(1, size%64)
		var out bytes.Buffer
		w := &plainWriter{out: &out}
		for rest := []byte(text); len(rest) > 0; rest = rest[min(size, len(rest)):] {
			if _, err := w.Write(rest[:min(size, len(rest))]); err != nil {
				t.Fatal(err)
			}
		}
		if strings.ContainsAny(out.String(), "\x00\x07\x08\x1b\x7f\u009b\u009d") {
			t.Errorf("%q became %q", text, out.String())
		}
	})
}

func TestEscapes(t *testing.T) {
	for keys, want := range map[string]string{
		"ls\r~.more": "ls\r!", "~.": "!", "~~.": "~.", "a~.": "a~.", "\r~x": "\r~x", "~~\r~.": "~\r!", "~": "",
	} {
		for size := 1; size <= len(keys); size++ {
			e, got := escapes{lineStart: true}, ""
			for rest := keys; rest != ""; rest = rest[min(size, len(rest)):] {
				passed, end := e.filter([]byte(rest[:min(size, len(rest))]))
				if got += string(passed); end {
					got += "!"
					break
				}
			}
			if got != want {
				t.Errorf("%q in pieces of %d: %q, not %q", keys, size, got, want)
			}
		}
	}
}

// TestKeyboard: each connection gets what is typed while it is there, and a
// connection that takes nothing cannot keep the end from being asked for.
func TestKeyboard(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	in, typed := io.Pipe()
	keys := newKeyboard(in, cancel)
	read := func(r io.Reader, want string) {
		t.Helper()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
			t.Errorf("%q, %v; not %q", got, err, want)
		}
	}
	write := func(text string) {
		t.Helper()
		if _, err := io.WriteString(typed, text); err != nil {
			t.Error(err)
		}
	}
	first := keys.reader()
	write("one")
	read(first, "one")
	first.close()
	if _, err := first.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a closed reader: %v", err)
	}
	write("to nobody")
	write("") // is read when the one before was taken
	second := keys.reader()
	write("two")
	read(second, "two")
	for range 2 * typedLimit {
		write("x")
	}
	write("\r~.")
	<-ctx.Done()
	if context.Cause(ctx) != errDisconnected {
		t.Error(context.Cause(ctx))
	}
	second.close()
}
