package shape_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentpane/sandboxctl/schema/diagnostic"
	"github.com/agentpane/sandboxctl/schema/internal/shape"
	"github.com/agentpane/sandboxctl/schema/internal/tree"
)

// TestCompileRefuses: CUE that the checker would misread is an error, never a check that is left out.
func TestCompileRefuses(t *testing.T) {
	for name, source := range map[string]string{
		"syntax":            "#A: {",
		"no default":        "#A: {a: string}",
		"no such thing":     "#A: {a?: #B}",
		"a closed list":     "#A: [string, int]",
		"an operator":       "#A: 1 + 1",
		"a bound by name":   "#A: int & >=x",
		"a bound alone":     "#A: >=1",
		"two lower bounds":  "#A: int & >=1 & >=2",
		"two ranges":        "#A: (int & >=1) | (int & <=-1)",
		"a meet of kinds":   "#A: int & number",
		"a meet of forms":   `#A: =~"a" & =~"b"`,
		"two lists":         "#A: [...int] | [...string]",
		"two included":      "#B: [...int], #C: [...string], #A: #B | #C",
		"an empty list":     "#A: []",
		"a mixed list":      "#A: [string, ...int]",
		"a mixed embedding": "#B: {a?: int} | {b?: int}, #A: {#B, c?: int}",
		"a negated pattern": `#A: !~"x"`,
		"a bad pattern":     `#A: =~"("`,
		"a comprehension":   "#A: {if true {a: 1}}",
		"an interpolation":  `#A: "\(x)"`,
		"a call":            "#A: len(3)",
		"a bound of text":   `#A: int & >"a"`,
		"anything at all":   "#A: _",
	} {
		if _, err := shape.Compile(source, nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func compile(t *testing.T, source string) *shape.Shape {
	t.Helper()
	compiled, err := shape.Compile(source, map[string]shape.Format{
		"Even": {Title: "an even word", Check: func(text string) string {
			if len(text)%2 == 0 {
				return ""
			}
			return "Add a letter."
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return compiled.Shape("#A")
}

func parse(t *testing.T, text string) (*diagnostic.File, tree.Node) {
	t.Helper()
	file := diagnostic.NewFile("f", text)
	root, found := tree.ReadYAML(file)
	if len(found) > 0 {
		t.Fatal(found)
	}
	return file, root
}

// TestCheck pins the words for what the schema of fleets does not happen to contain.
func TestCheck(t *testing.T) {
	for _, test := range []struct{ schema, value, want string }{
		{`#A: {...}`, `{a: [1, x, null]}`, ``},
		{`#A: {...}`, `{a: [.nan]}`, `f:1:6: error: "a[0]" is not a plain number: Write a decimal number of digits only, without leading zeros.`},
		{`#A: {a?: #Even}, #Even: string`, `{a: odd}`, `f:1:5: error: "odd" is not an even word: Add a letter.`},
		{`#A: {a?: #Even}, #Even: string`, `{a: 1}`, `f:1:5: error: "a" must be an even word, not an integer: Add a letter.`},
		{`#A: {a?: number & >1}`, `{a: 1}`, `f:1:5: error: "a" cannot be 1: It is more than 1.`},
		{`#A: {a?: int & <1}`, `{a: 1}`, `f:1:5: error: "a" cannot be 1: It is less than 1.`},
		{`#A: {a?: "x" | [...string]}`, `{a: y}`, `f:1:5: error: "a" cannot be "y": It is always "x".`},
		{`#A: {a?: {b!: int} | string}`, `{a: [1]}`, `f:1:5: error: "a" must be a string or a mapping, not a list: Write its keys without "- ".`},
		{`#A: {a?: {b!: int}}`, "a:", `f:1:1: error: "a" has no value: Give it a value: a mapping.`},
		{`#A: {a?: bool}`, "a: !!bool x", `f:1:4: error: "a" must be a boolean: Write true or false.`},
		{`#A: {a?: int}`, `{a: "12"}`, `f:1:5: error: "a" must be an integer, not a string: Write 12 without quotes.`},
		{`#A: {a?: int}`, `{a: "1e3"}`, `f:1:5: error: "a" must be an integer, not a string`},
		{`#A: string`, "[x]", `f:1:1: error: The file must be a string, not a list`},
	} {
		s := compile(t, test.schema)
		file, root := parse(t, test.value)
		var got []string
		for _, d := range s.Check(file, &root) {
			got = append(got, d.String())
		}
		if diff := cmp.Diff(test.want, strings.Join(got, "\n")); diff != "" {
			t.Errorf("%s of %s: -want +got\n%s", test.value, test.schema, diff)
		}
	}
}

type item struct {
	Name string `json:"name"`
	Size int    `json:"size"`
}

type short struct {
	Word  string   `schema:"word"`
	Words []string `schema:"word"`
	Other bool     `json:"other"`
}

func (short) Shorthand() string { return "word" }

// TestDecode shows each way of decoding that Decode documents, of right values and of wrong ones.
func TestDecode(t *testing.T) {
	type target struct {
		Items  []item           `json:"items"`
		Shorts []short          `json:"shorts"`
		On     *item            `json:"on"`
		Off    *item            `json:"off"`
		Open   []map[string]any `json:"open"`
		Share  float64          `json:"share"`
	}
	s := compile(t, `
#Item: {size: *3 | int}
#A: {
	items?: {[=~"^.$"]: #Item}
	shorts?: [...(null | string | {word?: string | [...string], other: *true | bool})]
	on: *#Item | bool
	off: *#Item | bool
	open?: {...}
	share: *0.5 | number
	unknown?: string
}`)
	for _, test := range []struct {
		value string
		want  target
	}{
		{
			"{}",
			target{On: &item{Size: 3}, Off: &item{Size: 3}, Share: 0.5},
		},
		{
			"{items: {b: {size: 2}, a: {}}, shorts: [x, ~, {word: [y, z], other: false}], on: true, off: false, open: {a: [1, 2.5, null, true, {b: c}]}, share: 1}",
			target{
				Items: []item{{"a", 3}, {"b", 2}}, Shorts: []short{{Word: "x", Other: true}, {Other: true}, {Words: []string{"y", "z"}}},
				On: &item{Size: 3}, Open: []map[string]any{{"a": []any{int64(1), 2.5, nil, true, map[string]any{"b": "c"}}}}, Share: 1,
			},
		},
		{
			"{items: [x], shorts: {a: b}, on: [], off: x, open: [], share: much, unknown: {}}",
			target{On: &item{}, Off: &item{}},
		},
	} {
		_, root := parse(t, test.value)
		var got target
		shape.Decode(s, &root, &got)
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", test.value, diff)
		}
	}
}
