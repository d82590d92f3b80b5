package shape

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/agentpane/sandboxctl/schema/diagnostic"
	"github.com/agentpane/sandboxctl/schema/internal/tree"
)

// label returns the value's name in a message: "ports", "ports[0]".
func (c *checker) label() string {
	for i := len(c.path) - 1; i >= 0; i-- {
		if key, ok := c.path[i].(string); ok {
			return diagnostic.Quote(key + diagnostic.Path(c.path[i+1:]...))
		}
	}
	return "The file"
}

// expected returns what the schema says about a value: what its definition is or, without one, what the field is for.
func expected(s *Shape, doc string) string {
	if s.doc == "" {
		return doc
	}
	first, rest := s.doc[:1], s.doc[1:]
	if strings.IndexAny(rest, "abcdefghijklmnopqrstuvwxyz ") == 0 { // no acronym
		first = strings.ToLower(first)
	}
	return "Expected: " + first + rest
}

// meaning says what a missing key is for, or what to write when only one value is possible.
func (f *field) meaning() string {
	if len(f.shape.enum) == 1 {
		return "Write " + diagnostic.Quote(f.name+": "+f.shape.enum[0]) + "."
	}
	return cmp.Or(f.doc, expected(f.shape, ""))
}

// listing names the struct's keys.
func (s *Struct) listing() string {
	if len(s.fields) == 1 {
		return "The only key here is " + diagnostic.Quote(s.fields[0].name) + "."
	}
	return strings.TrimSpace("The keys here are " + quoted(s.names(), " and ") + ". " + s.keyDoc)
}

// choices names the strings that the shape accepts as they stand.
func (s *Shape) choices() string {
	if len(s.enum) == 1 {
		return "It is always " + diagnostic.Quote(s.enum[0]) + "."
	}
	return "It is one of " + quoted(s.enum, " and ") + "."
}

// wrongKind reports a value that is, say, a list where the schema wants a string.
func (c *checker) wrongKind(s *Shape, doc string, at *tree.Field) {
	n := &at.Value
	if n.Kind == tree.Null {
		c.report(at.Token(), c.label()+" has no value", s.instead())
		return
	}
	if s.kinds == 1<<tree.Bool && s.items == nil && len(s.structs) == 0 {
		doc = "" // what true means does not help
	}
	summary := fmt.Sprintf("%s must be %s, not %s", c.label(), s.wanted(), n.Kind)
	c.report(n.Token(), summary, strings.TrimSpace(expected(s, doc)+" "+s.hint(n)))
}

// wanted names the kinds of value that the shape accepts.
func (s *Shape) wanted() string {
	var names []string
	if s.format != nil {
		names = append(names, s.format.Title)
	} else {
		for k := tree.Bool; k <= tree.String; k++ {
			if s.accepts(k) && (k != tree.Int || !s.accepts(tree.Float)) {
				names = append(names, k.String())
			}
		}
	}
	if s.items != nil {
		names = append(names, tree.List.String())
	}
	if len(s.structs) > 0 || s.open {
		names = append(names, tree.Map.String())
	}
	return join(names, " or ")
}

// instead says what to write in place of nothing.
func (s *Shape) instead() string {
	switch {
	case s.items != nil && s.minItems == 0:
		return "Leave the key out, or write [] for an empty list."
	case len(s.structs) == 1 && s.structs[0].mark() == "", s.open:
		return "Leave the key out, or write {} when there is nothing to say."
	}
	if len(s.enum) > 0 {
		return "Give it a value. " + s.choices()
	}
	return "Give it a value: " + s.wanted() + "."
}

// hint says how to turn the value, which is of the wrong kind, into one that is accepted.
func (s *Shape) hint(n *tree.Node) string {
	scalar := n.Kind < tree.List
	under := s.under(n)
	switch {
	case scalar && s.accepts(tree.String) && !(n.Kind == tree.Bool && s.accepts(tree.Float)):
		if s.format != nil && n.Kind != tree.Bool {
			if wrong := s.format.Check(n.Text); wrong != "" {
				return wrong
			}
		}
		return "Put it in quotes: " + diagnostic.Quote(n.Text) + "."
	case n.Kind == tree.String && s.accepts(tree.Int) && plainInt.MatchString(n.Text):
		return "Write " + n.Text + " without quotes."
	case scalar && s.accepts(tree.Bool):
		return "Write true or false."
	case scalar && s.items != nil && len(n.Text) < 40:
		items := []string{n.Text}
		if len(s.items.structs) > 0 && !s.items.accepts(n.Kind) {
			items = s.items.under(n)
		}
		if len(items) == 0 {
			return `Begin each item with "- ".`
		}
		return "Write it as a list: [" + strings.Join(items, "] or [") + "]."
	case len(under) > 0:
		return "Write " + join(under, " or ") + "."
	case n.Kind == tree.Map && s.items != nil:
		return `Begin each item with "- ".`
	case n.Kind == tree.List && len(s.structs) > 0:
		return `Write its keys without "- ".`
	}
	return ""
}

// under returns what the value is below each key that it may have been meant for: {host: x} for x, {allow: [...]} for a
// list. That is the key by which a struct is told from others, or its first one, where that is what the struct is for.
func (s *Shape) under(n *tree.Node) (all []string) {
	for _, st := range s.structs {
		if len(st.fields) == 0 {
			continue
		}
		f := st.fields[0]
		if mark := st.mark(); mark != "" {
			f = st.field(mark)
		} else if n.Kind != tree.List && len(s.structs) == 1 {
			continue
		}
		if n.Kind == tree.List && f.shape.items != nil || f.shape.takes(n) {
			all = append(all, "{"+f.name+": "+f.shape.flow(n)+"}")
		}
	}
	return all
}

// takes reports whether the value is a string that the shape accepts.
func (s *Shape) takes(n *tree.Node) bool {
	return n.Kind == tree.String && s.accepts(tree.String) &&
		(slices.Contains(s.enum, n.Text) || s.matches(n.Text) && (s.format == nil || s.format.Check(n.Text) == ""))
}

// plainText is what means itself without quotes, wherever it stands.
var plainText = regexp.MustCompile(`^-{0,2}[A-Za-z][-A-Za-z0-9./_]*$`)

// flow returns the value as it may be written within brackets; of a list with other items than the shape takes "[...]".
func (s *Shape) flow(n *tree.Node) string {
	if n.Kind != tree.List {
		if plainText.MatchString(n.Text) {
			return n.Text
		}
		return diagnostic.Quote(n.Text)
	}
	var items []string
	for i := range n.Fields {
		item := &n.Fields[i].Value
		if !s.items.takes(item) || i == 8 {
			return "[...]"
		}
		items = append(items, s.items.flow(item))
	}
	return "[" + strings.Join(items, ", ") + "]"
}

// within returns the range that the bounds leave.
func (s *Shape) within() string {
	var parts []string
	if b := s.lower; b != nil && b.exclusive {
		parts = append(parts, "more than "+b.text)
	} else if b != nil {
		parts = append(parts, "at least "+b.text)
	}
	if b := s.upper; b != nil && b.exclusive {
		parts = append(parts, "less than "+b.text)
	} else if b != nil {
		parts = append(parts, "at most "+b.text)
	}
	return strings.Join(parts, " and ")
}

// quoted returns the words in quotes, as an enumeration.
func quoted(words []string, last string) string {
	var all []string
	for _, word := range words {
		all = append(all, diagnostic.Quote(word))
	}
	return join(all, last)
}

func join(words []string, last string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	end := len(words) - 1
	return strings.Join(words[:end], ", ") + last + words[end]
}
