package shape

import (
	"slices"

	"github.com/agentpane/sandboxctl/schema/diagnostic"
	"github.com/agentpane/sandboxctl/schema/internal/tree"
)

// mapping checks a mapping against the struct that it is meant to be.
func (c *checker) mapping(s *Shape, at *tree.Field) {
	st := c.choose(s, at)
	if st == nil {
		return
	}
	n := &at.Value
	var meant []string // keys that are missing because they are misspelt
	for i := range n.Fields {
		entry := &n.Fields[i]
		c.push(entry.Key)
		if f := st.field(entry.Key); f != nil {
			c.value(f.shape, f.doc, entry)
		} else if len(st.fields) == 0 || st.key != nil && st.key.matches(entry.Key) {
			c.text(st.key, "", entry.Token())
			c.value(st.element, "", entry)
		} else {
			meant = append(meant, c.unknownKey(s, st, entry))
		}
		c.pop()
	}
	for _, f := range st.fields {
		if f.required && n.Get(f.name) == nil && !slices.Contains(meant, f.name) {
			c.report(at.Token(), "Missing key "+diagnostic.Quote(f.name), f.meaning())
		}
	}
}

// choose returns the struct, out of several, that the mapping is meant to be: the one whose required key it has, or has
// nearly. It reports a mapping that is none or more than one of them, and returns nil.
func (c *checker) choose(s *Shape, at *tree.Field) *Struct {
	if len(s.structs) == 1 {
		return s.structs[0]
	}
	var (
		marks, present []string
		chosen, plain  *Struct
	)
	for _, st := range s.structs {
		mark := st.mark()
		if mark == "" {
			plain = st
			continue
		}
		marks = append(marks, mark)
		if at.Value.Get(mark) != nil {
			present = append(present, mark)
			chosen = st
		}
	}
	if len(present) == 0 {
		chosen = s.misspelt(at, plain)
	}
	switch {
	case len(present) > 1:
		c.report(at.Value.Get(present[1]).Token(), quoted(present, " and ")+" exclude each other",
			"Keep one of them. In a list, make an entry of each.")
		return nil
	case chosen != nil:
		return chosen
	case plain != nil:
		return plain
	}
	c.report(at.Token(), "Missing key: one of "+quoted(marks, " and "), "Nothing here says what this is.")
	return nil
}

// misspelt returns the struct whose mark the mapping nearly has; nil when it has none, or the key is one of plain's.
func (s *Shape) misspelt(at *tree.Field, plain *Struct) *Struct {
	for i := range at.Value.Fields {
		key := at.Value.Fields[i].Key
		if plain != nil && plain.field(key) != nil {
			continue
		}
		for _, st := range s.structs {
			if diagnostic.Nearest(key, []string{st.mark()}) != "" {
				return st
			}
		}
	}
	return nil
}

// mark returns the struct's first required key, by which it is told from others; "" when it has none.
func (s *Struct) mark() string {
	for _, f := range s.fields {
		if f.required {
			return f.name
		}
	}
	return ""
}

// unknownKey reports a key that the struct does not have, and returns the one that was probably meant.
func (c *checker) unknownKey(s *Shape, st *Struct, entry *tree.Field) string {
	place := entry.Token()
	for _, other := range s.structs {
		if other != st && other.field(entry.Key) != nil {
			c.report(place, diagnostic.Quote(entry.Key)+" does not go with "+diagnostic.Quote(st.mark()), st.listing())
			return ""
		}
	}
	summary := "Unknown key " + diagnostic.Quote(entry.Key)
	for _, f := range st.fields {
		for _, inner := range f.shape.structs {
			if inner.field(entry.Key) != nil {
				c.report(place, summary, "It belongs one level deeper, under "+diagnostic.Quote(f.name)+".")
				return ""
			}
		}
	}
	meant := diagnostic.Nearest(entry.Key, st.names())
	if meant != "" {
		c.report(place, summary, diagnostic.DidYouMean(entry.Key, st.names()))
	} else {
		c.report(place, summary, st.listing())
	}
	return meant
}
