package tree

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

// whole reads the text in one piece.
func whole(file *diagnostic.File) (Node, diagnostic.List, error) {
	r := newYAMLReader(file, 0)
	root, err := r.document(file.Content, 0)
	return root, r.found, err
}

// TestSections reads texts in pieces of a few bytes and expects what reading them whole gives, or a refusal.
func TestSections(t *testing.T) {
	entries := func(n int, entry string) string {
		var b strings.Builder
		b.WriteString("a: 1\nlist:\n")
		for i := range n {
			fmt.Fprintf(&b, "  e%d: %s\n", i, entry)
		}
		return b.String()
	}
	for name, test := range map[string]struct {
		text   string
		pieces bool
	}{
		"plain":                       {entries(9, "x"), true},
		"a section behind":            {entries(9, "x") + "z: {a: b}\n", true},
		"comments and empty lines":    {entries(3, "x") + "\n# a\n  # b\n" + strings.NewReplacer("a: 1\nlist:\n", "", "  e", "  f").Replace(entries(3, "x\n\n    # c")), true},
		"nested":                      {entries(9, "\n    a: [1, 2]\n    b: |\n      text\n\n      more"), true},
		"Windows line ends":           {strings.ReplaceAll(entries(9, "x"), "\n", "\r\n"), true},
		"duplicates across pieces":    {entries(9, "x") + "  e0: y\n", false},
		"anchors within a piece":      {entries(9, "[&a x, *a]"), true},
		"an anchor from before":       {strings.Replace(entries(9, "*a"), "*a", "&a x", 1), false},
		"a quote over entries":        {entries(9, "x") + "  q: \"\n  e: 1\n  f: 2\n  g: 3\n  h: \"\n" + strings.Repeat("  i: 1\n", 9), false},
		"a bracket over entries":      {entries(9, "x") + "  q: [\n  1,\n  2,\n  3333333333333333333333333,\n  4]\n", false},
		"a list":                      {"list:\n" + strings.Repeat("- x\n", 99), false},
		"an indented list":            {"list:\n" + strings.Repeat("  - x\n", 99), false},
		"a scalar":                    {"list:\n" + strings.Repeat("  some words\n", 99), false},
		"two documents":               {entries(9, "x") + "---\n" + entries(9, "x"), false},
		"not YAML":                    {entries(9, "x") + "  - y\n", false},
		"a byte order mark":           {"\ufeff" + entries(9, "x"), false},
		"a line break of old":         {entries(9, "x\r  y: z"), false},
		"a tab":                       {entries(9, "x\n\ty: z"), false},
		"the section stands twice":    {entries(9, "x") + entries(99, "y"), false},
		"less indented further down":  {entries(9, "x") + " y: z\n", false},
		"merge keys":                  {entries(9, "{p: &a {x: y}, q: {<<: *a}}"), true},
		"the largest of two sections": {"b:\n  c: d\n" + entries(9, "x") + "e:\n  f: g\n", true},
	} {
		t.Run(name, func(t *testing.T) {
			file := diagnostic.NewFile("f", test.text)
			if ok := samePieces(t, file, 16); ok != test.pieces {
				t.Errorf("read in pieces: %v", ok)
			}
		})
	}
}

// samePieces reports whether the file can be read in pieces, and fails the test when that gives something else.
func samePieces(t *testing.T, file *diagnostic.File, size int) bool {
	t.Helper()
	got, ok := readSections(file, size)
	if !ok {
		return false
	}
	want, found, err := whole(file)
	if err != nil || len(found) > 0 {
		t.Fatalf("in pieces it is valid, and whole it is not: %v %v", err, found)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-whole +pieces\n%s", diff)
	}
	return true
}

// FuzzSections: what can be read in pieces reads the same whole.
func FuzzSections(f *testing.F) {
	f.Add("a: 1\nlist:\n  b: [x, y]\n  c: |\n    text\n  d: {e: f}\n  g: 'h'\nz: 1\n", 4)
	f.Add("list:\n  b: \"x\n  c: y\"\n  d: &a z\n  e: *a\n", 2)
	// What earlier versions got wrong.
	f.Add("A:\n ? \n ?", 4)
	f.Add("A:\n  0: \"000000\"\n  &a \n 00: 00", 14)
	f.Add("c: \n0:0000: 00000\nc: \n  0: 00000\n  0:00:", 4)
	f.Fuzz(func(t *testing.T, text string, size int) {
		if at := invalidUTF8(text); at < 0 && size > 0 && size < 1000 {
			samePieces(t, diagnostic.NewFile("f", text), size)
		}
	})
}
