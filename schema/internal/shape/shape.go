// Package shape makes of a CUE schema what plain CUE does not give: fast checks whose messages tell people what to do
// and where, decoding with the schema's defaults, and a JSON Schema.
//
// A [Shape] is one definition of the schema. The package knows the part of CUE that says which keys there are and what
// a single value may be; it refuses to compile any other part, and it knows nothing of what the values mean: that comes
// in as named formats. It never runs CUE, and a test holds it to what CUE says of the same schema and value.
package shape

import (
	"regexp"

	"github.com/agentpane/sandboxctl/schema/internal/tree"
)

// Format gives the values of a definition a meaning that a regular expression cannot.
type Format struct {
	// Title names such a value in a message: "host name".
	Title string
	// Check returns what is wrong with the text and what to write instead, as sentences; "" when nothing is.
	Check func(text string) string
}

// Shape is what a value may be: one of some kinds of scalar, a list, or one of some structs. Alternatives of a CUE
// disjunction are folded into it, so that a value always has one verdict and one message.
type Shape struct {
	name   string // of the definition, "" when there is none
	doc    string // its comment
	format *Format

	kinds    uint8            // of scalars, a bit for each
	enum     []string         // strings that are accepted as they stand
	patterns []*regexp.Regexp // a string matches one of them, or is in enum; any when there is neither
	lower    *bound           // of numbers
	upper    *bound

	items    *Shape // of a list
	minItems int

	structs []*Struct
	open    bool // any mapping is accepted

	fallback *tree.Node // what the value is when it is left out
}

// Struct is a mapping with known keys, or with keys of a known form.
type Struct struct {
	fields  []*field // as the schema has them
	key     *Shape   // of the keys that are not in fields; nil when there are no others
	keyDoc  string   // what those keys are
	element *Shape   // of the values of those keys
}

type field struct {
	name     string
	doc      string
	required bool
	optional bool // absent is a value of its own; otherwise the shape has a default
	shape    *Shape
}

// bound is an end of a range of numbers.
type bound struct {
	text      string
	value     float64
	exclusive bool
}

func (s *Struct) field(name string) *field {
	for _, f := range s.fields {
		if f.name == name {
			return f
		}
	}
	return nil
}

func (s *Struct) names() []string {
	var names []string
	for _, f := range s.fields {
		names = append(names, f.name)
	}
	return names
}

// Schema is a compiled CUE file.
type Schema struct {
	shapes map[string]*Shape
}

// Shape returns the definition of that name ("#Fleet"); nil when there is none.
func (s *Schema) Shape(name string) *Shape { return s.shapes[name] }
