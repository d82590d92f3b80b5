package tree

import (
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// unclosedQuote returns where the quote is that a fault comes from, which the parser found when it had read as far as
// seen; -1 where it comes from none. A text that is not closed goes on to the next quote, however far below: it is
// there, or a line or two on, that the parser takes offence.
func unclosedQuote(content string, seen int, atEnd bool) int {
	if at := openQuote(content[:seen]); at >= 0 {
		if !atEnd { // the fault is in the text itself
			return -1
		}
		return at
	}
	for range 3 {
		seen = max(0, strings.LastIndexByte(content[:seen], '\n'))
		if at := openQuote(content[:seen]); at >= 0 {
			behind := behindQuote(content[seen:], content[at])
			if behind == "" || strings.IndexByte(" ,:]}\r\n", behind[0]) >= 0 { // it is closed as it should be
				return -1
			}
			return at
		}
	}
	return -1
}

// behindQuote returns what follows a text that ends with the quote; empty where it does not end. A quote in it is written
// twice, or with a backslash.
func behindQuote(text string, quote byte) string {
	for i := 0; i < len(text); i++ {
		switch {
		case quote == '"' && text[i] == '\\', quote == '\'' && strings.HasPrefix(text[i:], "''"):
			i++
		case text[i] == quote:
			return text[i+1:]
		}
	}
	return ""
}

// openQuote returns where the quote is that is open where the text ends; -1 where none is.
func openQuote(text string) int {
	line := openLine(text)
	if line == 0 {
		return -1
	}
	if lines := strings.SplitAfterN(text, "\n", line+1); len(lines) > line {
		text = text[:len(text)-len(lines[line])]
	}
	at := len(text)
	for range 16 { // few lines have more quotes, and each takes a while
		if at = strings.LastIndexAny(text[:at], `"'`); at < 0 || openLine(text[:at]) != line {
			break
		}
	}
	return at
}

// openLine returns the line of the quote that is open where the text ends; 0 where none is.
func openLine(text string) (line int) {
	err := parse(strings.NewReader("\n" + text)) // of the first line the parser tells no number
	if _, other := fmt.Sscanf(err.Error(), "yaml: line %d: found unexpected end of stream", &line); other != nil {
		return 0
	}
	return line - 1
}

// parse returns what ends the reading of all documents: io.EOF where they are sound.
func parse(reader io.Reader) error {
	for decoder := yaml.NewDecoder(reader); ; {
		var document yaml.Node
		if err := decoder.Decode(&document); err != nil {
			return err
		}
	}
}
