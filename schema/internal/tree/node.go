// Package tree reads a YAML or CUE file into a tree of values that know where they stand.
//
// It finds what is wrong with the text itself: syntax, duplicate keys, more than one document, aliases that explode.
// It knows nothing of fleets and never says whether a value is the right one.
package tree

import (
	"strings"
	"unicode/utf8"

	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

// Kind is what a value is.
type Kind uint8

// The kinds. The zero value is null.
const (
	Null Kind = iota
	Bool
	Int
	Float
	String
	List
	Map
)

// String returns the kind as a message names it, with its article.
func (k Kind) String() string {
	return [...]string{"null", "a boolean", "an integer", "a number", "a string", "a list", "a mapping"}[k]
}

// Node is a value in a file. It is small, as a large fleet has half a million of them, and is not changed once read:
// an anchor's value is shared by all its uses.
type Node struct {
	Kind Kind
	// Line and Column say where the value begins, counted from 1; a column is a character. A default has neither.
	Line, Column int32
	// Text is what a scalar says: a string's value, true or false, a number as it was written.
	Text string
	// Fields are the entries of a map as they were written, or the items of a list, whose keys are empty.
	Fields []Field
}

// Field is an entry of a map, or an item of a list.
type Field struct {
	Key          string
	Line, Column int32 // where the key begins
	Value        Node
}

// Get returns the map's entry of that key; nil when there is none, or the value is no map.
func (n *Node) Get(key string) *Field {
	if n.Kind == Map {
		for i := range n.Fields {
			if n.Fields[i].Key == key {
				return &n.Fields[i]
			}
		}
	}
	return nil
}

// Child returns the entry or item that step, a key or an index, leads to; nil when there is none.
func (n *Node) Child(step any) *Field {
	switch step := step.(type) {
	case string:
		return n.Get(step)
	case int:
		if n.Kind == List && step >= 0 && step < len(n.Fields) {
			return &n.Fields[step]
		}
	}
	return nil
}

// Omits reports whether the value does not have all that before has: each key, each item of a list, and each text
// or number to its end. Where another value stands, nothing is omitted.
func (n *Node) Omits(before *Node) bool {
	switch {
	case n.Kind == Null:
		return before.Kind != Null
	case before.Kind != List && before.Kind != Map:
		return n.Text != "" && n.Text != before.Text && strings.HasPrefix(before.Text, n.Text)
	case n.Kind != before.Kind:
		return len(before.Fields) > 0
	}
	for i := range before.Fields {
		field := &before.Fields[i]
		var now *Field
		if i < len(n.Fields) && n.Fields[i].Key == field.Key { // items of a list, and most keys, stand where they stood
			now = &n.Fields[i]
		} else {
			now = n.Get(field.Key)
		}
		if now == nil || now.Value.Omits(&field.Value) {
			return true
		}
	}
	return false
}

// Token is a word in a file: where it begins and, unless it is quoted there, how it reads.
type Token struct {
	Line, Column int32
	Text         string
}

// Token returns the beginning of the value: all of a scalar, the first word of anything else.
func (n *Node) Token() Token { return Token{n.Line, n.Column, n.Text} }

// Token returns the entry's key, or the beginning of an item, which has none.
func (f *Field) Token() Token {
	if f.Line == 0 {
		return f.Value.Token()
	}
	return Token{f.Line, f.Column, f.Key}
}

// Range returns the part of the file that the token takes.
func (t Token) Range(file *diagnostic.File) diagnostic.Range {
	line, column := int(t.Line), int(t.Column)
	return file.Range(line, column, width(file.Rest(line, column), t.Text))
}

func width(rest, text string) int {
	switch {
	case text != "" && strings.HasPrefix(rest, text):
		return utf8.RuneCountInString(text)
	case strings.HasPrefix(rest, `"`), strings.HasPrefix(rest, `'`):
		if end := strings.IndexByte(rest[1:], rest[0]); end >= 0 {
			return utf8.RuneCountInString(rest[:end+2])
		}
		return utf8.RuneCountInString(rest)
	case rest == "" || strings.ContainsRune("{[-&*!|>", rune(rest[0])):
		return 1
	}
	word := rest[:len(rest)-len(strings.TrimLeft(rest, "_-./0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"))]
	return max(1, len(word))
}
