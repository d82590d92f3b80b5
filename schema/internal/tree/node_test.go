package tree

import (
	"testing"

	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

func TestOmits(t *testing.T) {
	const before = "{a: {b: text, c: [1, 20]}, d: null, e: {}}"
	for now, want := range map[string]bool{
		before: false,
		"{e: {}, d: 5, a: {c: [1, 20, 3], f: x, b: text}}": false,
		"{a: {b: other, c: [2, 30]}, d: [], e: {x: y}}":    false,
		"{a: {b: text, c: [1, 20]}, e: {}}":                true,
		"{a: {c: [1, 20]}, d: null, e: {}}":                true,
		"{a: {b: te, c: [1, 20]}, d: null, e: {}}":         true,
		"{a: {b: text, c: [1]}, d: null, e: {}}":           true,
		"{a: {b: text, c: [1, 2]}, d: null, e: {}}":        true,
		"{a: {b: null, c: [1, 20]}, d: null, e: {}}":       true,
		"{a: {b: text, c: x}, d: null, e: {}}":             true,
		"{a: {b: text, c: [1, 20]}, d: null, e: null}":     true,
		"{a: x, d: null, e: {}}":                           true,
		"":                                                 true,
	} {
		nodes := make([]Node, 2)
		for i, text := range []string{before, now} {
			nodes[i], _ = ReadYAML(diagnostic.NewFile("f", text))
		}
		if got := nodes[1].Omits(&nodes[0]); got != want {
			t.Errorf("%s: %v, want %v", now, got, want)
		}
	}
}
