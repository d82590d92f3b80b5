package diagnostic

import (
	"cmp"
	"fmt"
	"sort"
	"strings"
	"unicode/utf8"
)

// File is a file that was read: what it is called and what it says. It does not change.
type File struct {
	Name    string
	Content string
	starts  []int32 // the offset at which each line begins
	ascii   bool    // a column is an offset, so that no line must be counted through
}

// NewFile returns the file of that name and content. Lines end with "\n"; a "\r" before it is not part of the line.
func NewFile(name, content string) *File {
	f := &File{Name: name, Content: content, starts: make([]int32, 1, strings.Count(content, "\n")+1), ascii: true}
	for offset := range len(content) {
		f.ascii = f.ascii && content[offset] < utf8.RuneSelf
		if content[offset] == '\n' {
			f.starts = append(f.starts, int32(offset+1))
		}
	}
	return f
}

// MarshalText returns the name: whoever reads a finding has the file.
func (f *File) MarshalText() ([]byte, error) { return []byte(f.Name), nil }

// Lines returns the number of lines, at least 1.
func (f *File) Lines() int { return len(f.starts) }

// Line returns the n-th line, counted from 1, without its end; "" when there is no such line.
func (f *File) Line(n int) string {
	if n < 1 || n > len(f.starts) {
		return ""
	}
	line := f.Content[f.starts[n-1]:]
	if n < len(f.starts) {
		line = f.Content[f.starts[n-1]:f.starts[n]]
	}
	return strings.TrimRight(line, "\r\n")
}

// Rest returns what follows a place on its line, the character there included; "" when there is no such place.
func (f *File) Rest(line, column int) string {
	rest := f.Line(line)
	if f.ascii {
		return rest[min(max(column-1, 0), len(rest)):]
	}
	for ; column > 1 && rest != ""; column-- {
		_, size := utf8.DecodeRuneInString(rest)
		rest = rest[size:]
	}
	return rest
}

// width returns the number of characters.
func (f *File) width(text string) int {
	if f.ascii {
		return len(text)
	}
	return utf8.RuneCountInString(text)
}

// Position returns the place of the byte at offset; of the file's end when there is no such byte.
func (f *File) Position(offset int) Position {
	offset = max(0, min(offset, len(f.Content)))
	line := sort.Search(len(f.starts), func(i int) bool { return int(f.starts[i]) > offset })
	return Position{Line: line, Column: f.width(f.Content[f.starts[line-1]:offset]) + 1}
}

// Range returns the range of width characters at line and column, both brought into the file where they lie outside.
func (f *File) Range(line, column, width int) Range {
	line = max(1, min(line, len(f.starts)))
	end := f.width(f.Line(line)) + 1
	column = max(1, min(column, end))
	return Range{
		File:  f,
		Start: Position{Line: line, Column: column},
		End:   Position{Line: line, Column: max(column, min(column+width, end))},
	}
}

// Position is a place in a file. Both numbers start at 1, and a column is a character, not a byte.
type Position struct {
	Line   int `json:"line"`
	Column int `json:"column"`
}

func (p Position) compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Line, q.Line), cmp.Compare(p.Column, q.Column))
}

// Range is a part of a file. End is the place behind its last character, and on the same line as Start.
type Range struct {
	File  *File    `json:"file,omitempty"`
	Start Position `json:"start"`
	End   Position `json:"end"`
}

// String returns file:line:column, or "" when there is no file.
func (r Range) String() string {
	if r.File == nil {
		return ""
	}
	return fmt.Sprintf("%s:%d:%d", r.File.Name, r.Start.Line, r.Start.Column)
}
