package shape

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/agentpane/sandboxctl/schema/diagnostic"
	"github.com/agentpane/sandboxctl/schema/internal/tree"
)

// Check returns everything that keeps the value from being one of this shape, each thing once. The order is that of the
// schema, not that of the file.
func (s *Shape) Check(file *diagnostic.File, value *tree.Node) diagnostic.List {
	c := &checker{file: file}
	c.value(s, "", &tree.Field{Value: *value})
	return c.found
}

type checker struct {
	file  *diagnostic.File
	path  []any
	found diagnostic.List
}

func (c *checker) push(step any) { c.path = append(c.path, step) }
func (c *checker) pop()          { c.path = c.path[:len(c.path)-1] }

func (c *checker) report(at tree.Token, summary, detail string) {
	c.found = append(c.found, diagnostic.Diagnostic{
		Summary: summary, Detail: detail, Path: diagnostic.Path(c.path...), Subject: at.Range(c.file),
	})
}

// value checks an entry or item. doc is the comment of the field that it stands in.
func (c *checker) value(s *Shape, doc string, at *tree.Field) {
	n := &at.Value
	switch {
	case s.open && n.Kind == tree.Map:
		c.anything(at)
	case n.Kind == tree.Map && len(s.structs) > 0:
		c.mapping(s, at)
	case n.Kind == tree.List && s.items != nil:
		c.list(s, at)
	case s.accepts(n.Kind):
		c.scalar(s, doc, at)
	default:
		c.wrongKind(s, doc, at)
	}
}

func (c *checker) list(s *Shape, at *tree.Field) {
	if len(at.Value.Fields) < s.minItems {
		c.report(at.Token(), c.label()+" is empty", "Name at least one, or leave the key out.")
	}
	for i := range at.Value.Fields {
		c.push(i)
		c.value(s.items, "", &at.Value.Fields[i])
		c.pop()
	}
}

func (c *checker) scalar(s *Shape, doc string, at *tree.Field) {
	n := &at.Value
	switch n.Kind {
	case tree.String:
		c.text(s, doc, n.Token())
	case tree.Int, tree.Float:
		c.number(s, n)
	case tree.Bool:
		if n.Text != "true" && n.Text != "false" {
			c.report(n.Token(), c.label()+" must be a boolean", "Write true or false.")
		}
	}
}

// text checks a string, or a key.
func (c *checker) text(s *Shape, doc string, at tree.Token) {
	if slices.Contains(s.enum, at.Text) {
		return
	}
	if s.format != nil {
		if wrong := s.format.Check(at.Text); wrong != "" {
			c.report(at, diagnostic.Quote(at.Text)+" is not "+s.format.Title, wrong)
			return
		}
	}
	if s.matches(at.Text) {
		return
	}
	detail := expected(s, doc)
	if len(s.enum) > 0 {
		detail = s.choices()
		if len(s.enum) > 1 {
			detail += " " + diagnostic.DidYouMean(at.Text, s.enum)
		}
	}
	c.report(at, c.label()+" cannot be "+diagnostic.Quote(at.Text), strings.TrimSpace(detail))
}

// matches reports whether a string that the shape does not name has one of the forms that it accepts.
func (s *Shape) matches(text string) bool {
	return len(s.enum)+len(s.patterns) == 0 ||
		slices.ContainsFunc(s.patterns, func(p *regexp.Regexp) bool { return p.MatchString(text) })
}

// plainInt leaves out what YAML 1.1 and 1.2 read differently (010), and what only programmers read (0x1F, 1_000).
var plainInt = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)

func (c *checker) number(s *Shape, n *tree.Node) {
	value, err := strconv.ParseFloat(n.Text, 64)
	if n.Kind == tree.Int && !plainInt.MatchString(n.Text) || err != nil || math.IsInf(value, 0) || math.IsNaN(value) {
		c.report(n.Token(), c.label()+" is not a plain number", "Write a decimal number of digits only, without leading zeros.")
		return
	}
	if !s.lower.allows(value, 1) || !s.upper.allows(value, -1) {
		c.report(n.Token(), c.label()+" cannot be "+n.Text, "It is "+s.within()+".")
		return
	}
	if s.format != nil {
		if wrong := s.format.Check(n.Text); wrong != "" {
			c.report(n.Token(), n.Text+" is not "+s.format.Title, wrong)
		}
	}
}

// allows reports whether the value is on the right side of the bound: above it when side is 1, below it when it is -1.
func (b *bound) allows(value, side float64) bool {
	return b == nil || (value-b.value)*side > 0 || value == b.value && !b.exclusive
}

// anything checks what the schema leaves open: it only has to be something that JSON can say.
func (c *checker) anything(at *tree.Field) {
	n := &at.Value
	if n.Kind == tree.Int || n.Kind == tree.Float {
		c.number(&Shape{}, n)
	}
	for i := range n.Fields {
		if n.Kind == tree.Map {
			c.push(n.Fields[i].Key)
		} else {
			c.push(i)
		}
		c.anything(&n.Fields[i])
		c.pop()
	}
}
