package tree

import (
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

// A parsed YAML document takes twenty times the memory of its text. So the largest section of a large file is read in
// pieces, each of some entries, side by side:
//
//	sandboxes:
//	  a: ...      first piece
//	  b: ...
//	  c: ...      second piece
//
// A piece means by itself what it means in the file. What begins on a line indented as the entries are is an entry,
// unless a quote, a bracket or an anchor reaches over from before; then the piece that it comes from, or the one that
// it reaches into, is not valid by itself. Whenever anything is not valid, the file is read as a whole, which also
// gives the message.

// pieceSize is that of a piece's text. Files of up to twice that are read as a whole.
const pieceSize = 64 << 10

// piece is some entries of a section.
type piece struct {
	text   string
	line   int // lines of the file before it
	indent int // spaces before each entry
}

// holds reports whether the value is entries that all stand where the piece's do.
func (p piece) holds(n *Node) bool {
	elsewhere := func(f Field) bool { return int(f.Column) != p.indent+1 }
	return n.Kind == Map && !slices.ContainsFunc(n.Fields, elsewhere)
}

// readSections reads a large file in pieces; ok is false when it must be read as a whole.
func readSections(file *diagnostic.File, size int) (root Node, ok bool) {
	rest, key, pieces := cut(file.Content, size)
	if len(pieces) < 2 {
		return Node{}, false
	}
	readers := make([]*yamlReader, len(pieces))
	nodes := make([]Node, len(pieces))
	var group sync.WaitGroup
	next := make(chan int)
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for i := range next {
				readers[i] = newYAMLReader(file, pieces[i].line)
				nodes[i], _ = readers[i].document(pieces[i].text, 1)
			}
		})
	}
	for i := range pieces {
		next <- i
	}
	close(next)
	group.Wait()

	r := newYAMLReader(file, 0)
	root, _ = r.document(rest, 0)
	section := root.Get(key)
	if section == nil || section.Value.Kind != Null || int(section.Line) != pieces[0].line {
		return Node{}, false
	}
	aliased := r.aliased
	section.Value = Node{Kind: Map, Line: nodes[0].Line, Column: nodes[0].Column}
	var known keys
	for i, n := range nodes {
		aliased += readers[i].aliased
		if !pieces[i].holds(&n) || len(readers[i].found) > 0 || aliased > maxAliased {
			return Node{}, false
		}
		for j := range n.Fields {
			r.add(&section.Value.Fields, &known, n.Fields[j])
		}
	}
	return root, len(r.found) == 0
}

// cut takes the largest section out of the text: rest is the text with empty lines in its place.
func cut(text string, size int) (rest, key string, pieces []piece) {
	if len(text) <= 2*size || strangeBreaks(text) {
		return "", "", nil
	}
	var best section
	lines := 0
	for at := 0; at < len(text); {
		s := sectionAt(text, at)
		s.line = lines
		if s.end-s.begin > best.end-best.begin {
			best = s
		}
		lines += strings.Count(text[at:s.end], "\n")
		at = s.end
	}
	body := text[best.begin:best.end]
	rest = text[:best.begin] + strings.Repeat("\n", strings.Count(body, "\n")) + text[best.end:]
	return rest, best.key, best.pieces(body, size)
}

// strangeBreaks reports whether the text has line breaks that the parser counts and files do not.
func strangeBreaks(text string) bool {
	for _, other := range []string{"\u0085", "\u2028", "\u2029", "\ufeff"} {
		if strings.Contains(text, other) {
			return true
		}
	}
	return strings.Count(text, "\r") != strings.Count(text, "\r\n")
}

// section is a key on a line of its own and what is indented below it.
type section struct {
	key        string // empty when the line is something else
	line       int    // lines of the file before the key
	begin, end int    // of what is below
}

// sectionAt returns the section that begins at the line at offset at, up to the next line that is not indented.
func sectionAt(text string, at int) section {
	begin := lineEnd(text, at)
	s := section{begin: begin, end: begin}
	name, after, isKey := strings.Cut(text[at:begin], ":")
	plain := isKey && len(name) > 0 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
	if plain && strings.TrimSpace(after) == "" {
		s.key = name
	}
	for s.key != "" && s.end < len(text) && strings.IndexByte(" \r\n#", text[s.end]) >= 0 {
		s.end = lineEnd(text, s.end)
	}
	return s
}

func lineEnd(text string, at int) int {
	if i := strings.IndexByte(text[at:], '\n'); i >= 0 {
		return at + i + 1
	}
	return len(text)
}

// pieces cuts the section's body between entries: at lines indented as the first one is.
func (s section) pieces(body string, size int) []piece {
	var pieces []piece
	indent, begin, line := -1, 0, s.line+1
	for at := 0; at < len(body); at = lineEnd(body, at) {
		depth := len(body[at:]) - len(strings.TrimLeft(body[at:], " "))
		if at+depth == len(body) || strings.IndexByte("#\r\n", body[at+depth]) >= 0 {
			continue
		}
		if indent < 0 {
			indent = depth
		}
		if depth == indent && at-begin >= size {
			pieces = append(pieces, piece{body[begin:at], line, indent})
			line += strings.Count(body[begin:at], "\n")
			begin = at
		}
	}
	return append(pieces, piece{body[begin:], line, indent})
}
