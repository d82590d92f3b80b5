// Package diagnostic holds what is wrong with a file as values: what, where, and what to do about it.
//
// A [Diagnostic] carries everything that a reader needs, the text of the file included, so that any view (terminal,
// JSON, annotations of a pull request) can be made from it alone. The package never prints, never reads a file and
// never decides whether a finding matters.
package diagnostic

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity says whether a file can be used in spite of a finding.
type Severity int

// The severities. The zero value is the one that nobody overlooks.
const (
	Error Severity = iota
	Warning
)

// String returns "Error" or "Warning".
func (s Severity) String() string {
	if s == Warning {
		return "Warning"
	}
	return "Error"
}

// MarshalText returns "error" or "warning", as JSON has it.
func (s Severity) MarshalText() ([]byte, error) {
	return []byte(strings.ToLower(s.String())), nil
}

// Diagnostic is one finding.
type Diagnostic struct {
	Severity Severity `json:"severity"`
	// Summary is one line without a full stop: what is wrong.
	Summary string `json:"summary"`
	// Detail is what was expected and what to do; sentences, possibly none.
	Detail string `json:"detail,omitzero"`
	// Path names the value, as sandboxes.api.egress.allow[0].ports[1]; empty for a finding about the file as a whole.
	Path string `json:"path,omitzero"`
	// Subject is where it stands. Its File is nil when no file could be read.
	Subject Range `json:"subject,omitzero"`
	// Related is a second place that one must see to understand the finding; nil when there is none.
	Related *Related `json:"related,omitempty"`
}

// Related is another place that has to do with a finding.
type Related struct {
	Message string `json:"message"`
	Range   Range  `json:"range"`
}

// String returns the finding on one line: where, how bad, what, and what to do.
func (d Diagnostic) String() string {
	line := strings.ToLower(d.Severity.String()) + ": " + d.Summary
	if d.Subject.File != nil {
		line = d.Subject.String() + ": " + line
	}
	if d.Detail != "" {
		line += ": " + strings.ReplaceAll(d.Detail, "\n", " ")
	}
	return line
}

// List is what was found, in any number of files.
type List []Diagnostic

// HasErrors reports whether the list holds more than warnings.
func (l List) HasErrors() bool {
	return slices.ContainsFunc(l, func(d Diagnostic) bool { return d.Severity == Error })
}

// Errors returns the findings that are more than warnings.
func (l List) Errors() List {
	return slices.DeleteFunc(slices.Clone(l), func(d Diagnostic) bool { return d.Severity != Error })
}

// Sorted returns the findings in the order of their places, each once. A place that a file uses several times (a YAML
// anchor) would otherwise be reported at each use. Files keep the order in which they first appear.
func (l List) Sorted() List {
	order := make(map[*File]int)
	for _, d := range l {
		if _, known := order[d.Subject.File]; !known {
			order[d.Subject.File] = len(order)
		}
	}
	sorted := slices.Clone(l)
	slices.SortStableFunc(sorted, func(a, b Diagnostic) int {
		return cmp.Or(
			cmp.Compare(order[a.Subject.File], order[b.Subject.File]),
			a.Subject.Start.compare(b.Subject.Start),
			cmp.Compare(a.Severity, b.Severity),
		)
	})
	type finding struct {
		subject         Range
		summary, detail string
	}
	seen := make(map[finding]bool)
	return slices.DeleteFunc(sorted, func(d Diagnostic) bool {
		id := finding{d.Subject, d.Summary, d.Detail}
		again := seen[id]
		seen[id] = true
		return again
	})
}

// Path returns the name of the value that one reaches by the given keys (strings) and list indexes (ints). A key that
// is not a plain word is quoted: labels["app.kubernetes.io/name"].
func Path(steps ...any) string {
	var b strings.Builder
	for _, step := range steps {
		key, isKey := step.(string)
		switch {
		case !isKey:
			fmt.Fprintf(&b, "[%d]", step)
		case !plain(key):
			fmt.Fprintf(&b, "[%s]", Quote(key))
		default:
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(key)
		}
	}
	return b.String()
}

func plain(key string) bool {
	return key != "" && strings.IndexFunc(key, func(r rune) bool {
		return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) < 0
}

// quoteLimit keeps a message readable when the value that it quotes is not.
const quoteLimit = 80

// Quote returns text in double quotes, on one line, without control characters and not too long.
func Quote(text string) string {
	if runes := []rune(text[:min(len(text), 4*quoteLimit)]); len(runes) > quoteLimit {
		text = string(runes[:quoteLimit-1]) + "…"
	}
	return fmt.Sprintf("%q", text)
}
