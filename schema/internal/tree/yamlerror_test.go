package tree

import (
	"testing"

	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

// TestSyntaxErrorPlaces: a fault is reported where it is, and not where the parser takes offence.
func TestSyntaxErrorPlaces(t *testing.T) {
	for text, want := range map[string]string{
		"a: *":                         "1:4",
		"a: * b":                       "1:4",
		"a: [b, *c*d*]":                "1:8",
		"a: {b: &&c}":                  "1:8",
		"a: || b":                      "1:4",
		"a: |b\nc: d":                  "1:4",
		"a: \"b\nc: d\n":               "1:4", // of the first line the parser tells no number
		"a: \"it's\nb: c\n":            "1:4",
		"a: {b: \"c\", d: 'e}\nf: g\n": "1:16",
		"a: 'b\nc: [d, e]\nf: 'g'\nh: \"i\"\nj: k": "1:4",
		"a: \"b\nc:\n  d: \"e\"\n  f: 'g'\n":       "1:4", // read on to line 4
		"a: {":                                     "1:4",
		"a: [b,\n":                                 "1:6",
		"a: }\n":                                   "1:4",
		// what is wrong here is not that a text has two lines
		"a: \"b\n  c\"\n d: e\n":        "3:2",
		"a: {b: \"c\n  d\",\n e: f: g}": "3:2",
		"a: \"b\n  c\\q\"\nd: e\n":      "2:4",
		"a: 'b\n  it''s c'\nd: e: f\n":  "3:5",
		"a: \"b\n  c\\\"d\"\ne: f: g\n": "3:5",
	} {
		_, found := ReadYAML(diagnostic.NewFile("f", text))
		if len(found) != 1 || found[0].Subject.String() != "f:"+want {
			t.Errorf("%q: %v, want %s", text, found, want)
		}
	}
}
