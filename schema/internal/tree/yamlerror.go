package tree

import (
	"io"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

// syntaxError returns what the parser's error means and where it is. The parser tells a line at best, often that of
// the construct around the fault, so the file is read again byte by byte: the fault is where the parser stops reading.
func syntaxError(file *diagnostic.File, err error) diagnostic.Diagnostic {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	text = regexp.MustCompile(`^line \d+: `).ReplaceAllString(text, "")
	reader := &countingReader{content: file.Content}
	_ = parse(reader) // as err
	seen := reader.count
	if at := unclosedQuote(file.Content, seen, strings.Contains(text, endOfStream)); at >= 0 {
		seen, text = at+1, endOfStream
	} else if name, unknown := unknownAnchor(text); unknown {
		seen = lastAlias(file.Content[:seen], name)
	}
	known := explain(text)
	if known.mark == "*&" || known.mark == "|>" { // the parser has read on from where the value begins
		at := max(0, strings.LastIndexAny(file.Content[:seen], known.mark))
		seen = strings.LastIndexAny(file.Content[:at], " \t\n[{,") + 2
	}
	place := faultAt(file, seen)
	line := []rune(file.Line(place.Line))
	before := string(line[:min(place.Column, len(line))])
	at := len(before) - len(strings.TrimLeft(before, " "))
	if i := strings.LastIndexAny(before, known.mark); i >= 0 {
		at = i
	}
	if strings.HasPrefix(before[at:], "\t") {
		known = explain("found a tab character")
	}
	return diagnostic.Diagnostic{
		Summary: "This is not valid YAML", Detail: known.meaning,
		Subject: file.Range(place.Line, utf8.RuneCountInString(before[:at])+1, 1),
	}
}

// unknownAnchor returns the anchor that the parser's error names as one that is not defined.
func unknownAnchor(text string) (name string, unknown bool) {
	name, unknown = strings.CutPrefix(text, "unknown anchor '")
	return strings.TrimSuffix(name, "' referenced"), unknown
}

// lastAlias returns how much of content there is up to the "*" of the last alias of that name: the parser has read on to
// what comes after it.
func lastAlias(content, name string) int {
	for at := len(content); at >= 0; {
		if at = strings.LastIndex(content[:at], "*"+name); at < 0 {
			break
		}
		line := content[strings.LastIndexByte(content[:at], '\n')+1 : at]
		if rest := content[at+1+len(name):]; !strings.Contains(line, "#") && strings.TrimLeft(rest, anchorLetters) == rest {
			return at + 1
		}
	}
	return len(content)
}

// anchorLetters are what the parser takes into the name of an anchor.
const anchorLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"

// faultAt returns the place of the last character that the parser saw which is neither white space nor a comment.
func faultAt(file *diagnostic.File, seen int) diagnostic.Position {
	for seen > 0 && strings.IndexByte(" \t\r\n", file.Content[seen-1]) >= 0 {
		seen--
	}
	return file.Position(max(0, seen-1))
}

// countingReader hands out one byte at a time.
type countingReader struct {
	content string
	count   int
}

func (r *countingReader) Read(p []byte) (int, error) {
	if r.count == len(r.content) {
		return 0, io.EOF
	}
	p[0] = r.content[r.count]
	r.count++
	return 1, nil
}

// fault is a text of the parser's, in part, and what it means to somebody who edits a file. The place is the last of
// the characters mark before the parser stopped, or the beginning of the line.
type fault struct{ text, mark, meaning string }

// endOfStream is the parser's text for a quote that is open at the end.
const endOfStream = "found unexpected end of stream"

func explain(text string) fault {
	for _, known := range [...]fault{
		{"found a tab character", "\t", "Indentation is made of spaces; there is a tab here."},
		{"mapping values are not allowed", ":", `A ": " is not possible here. Put the text in quotes, or begin a new line.`},
		{"did not find expected alphabetic or numeric character", "*&", `A value that begins with "*" or "&" needs quotes: "*.example.org".`},
		{"did not find expected comment or line break", "|>", `What begins with "|" or ">" is a text on the lines below. Put a value that begins so in quotes.`},
		{"cannot start any token", "@`%\t", "No value can begin with this character. Put the text in quotes."},
		{"did not find expected key", "", `This line does not go with the ones above it: see whether it is indented as they are, and that each has a key and a ":".`},
		{"did not find expected '-' indicator", "", `This line does not go with the list above it: begin it with "- ", or indent it as the list's key is.`},
		{"did not find expected ',' or ']'", "", `A "[" is not closed: there is neither a "," nor a "]" before this place.`},
		{"did not find expected ',' or '}'", "", `A "{" is not closed: there is neither a "," nor a "}" before this place.`},
		{"did not find expected node content", "{}[],", `What begins with "{" or "[" is not closed, or there is a bracket or a comma too many here.`},
		{"could not find expected ':'", "", `There is a key without ":", or the line before it is not ended as it should be.`},
		{endOfStream, `"'`, "This quote is not closed: what follows is read as one text with it."},
		{"block sequence entries are not allowed", "-", `A list cannot begin here. Begin "- " on a line of its own below the key.`},
		{"mapping keys are not allowed", "?", "A key cannot stand here."},
		{"found unknown escape character", `\`, `Between double quotes a "\" begins an escape such as "\n". Write "\\", or use single quotes.`},
		{"control characters are not allowed", controls, "There is a control character here."},
		{"exceeded max depth", "", "It is nested too deeply."},
	} {
		if strings.Contains(text, known.text) {
			return known
		}
	}
	if name, unknown := unknownAnchor(text); unknown {
		return fault{mark: "*", meaning: "The alias stands for an anchor that is not defined before it: '" + name + `'. A text that begins with "*" needs quotes.`}
	}
	return fault{meaning: "The parser says: " + text + "."}
}

// controls are the control characters that YAML does not allow.
const controls = "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f"
