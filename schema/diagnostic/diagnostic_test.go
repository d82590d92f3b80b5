package diagnostic_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

func TestFormat(t *testing.T) {
	file := diagnostic.NewFile("f.yaml", "one: 1\n\ttwo: \x1b[31mzwei\u202e\r\nthree: "+strings.Repeat("3", 200))
	for name, test := range map[string]struct {
		d     diagnostic.Diagnostic
		style diagnostic.Style
		want  string
	}{
		"no place": {
			diagnostic.Diagnostic{Summary: "Broken", Detail: "Mend it."}, diagnostic.Style{},
			"╷\n│ Error: Broken\n│\n│ Mend it.\n╵\n",
		},
		"a warning in colour": {
			diagnostic.Diagnostic{Severity: diagnostic.Warning, Summary: "Odd", Subject: file.Range(1, 6, 1)}, diagnostic.Style{Color: true},
			"\x1b[33m╷\x1b[0m\n\x1b[33m│\x1b[0m \x1b[33mWarning:\x1b[0m \x1b[1mOdd\x1b[0m\n\x1b[33m│\x1b[0m\n\x1b[33m│\x1b[0m   f.yaml:1:6\n\x1b[33m│\x1b[0m\n" +
				"\x1b[33m│\x1b[0m \x1b[2m   1 │\x1b[0m one: 1\n\x1b[33m│\x1b[0m \x1b[2m     │\x1b[0m      \x1b[33m^\x1b[0m\n\x1b[33m╵\x1b[0m\n",
		},
		"a hostile line": {
			diagnostic.Diagnostic{Summary: "Odd\x1b[2J", Path: "a\nb", Subject: file.Range(2, 7, 99)}, diagnostic.Style{},
			"╷\n│ Error: Odd�[2J\n│\n│   f.yaml:2:7, at a�b\n│\n│    2 │  two: �[31mzwei�\n│      │       ^^^^^^^^^^\n╵\n",
		},
		"a long line and a long text": {
			diagnostic.Diagnostic{Summary: "Long", Detail: "  a list\n" + strings.Repeat("word ", 12), Subject: file.Range(3, 100, 2)}, diagnostic.Style{Width: 40},
			"╷\n│ Error: Long\n│\n│   f.yaml:3:100\n│\n│    3 │ …33333333333333333333333333333\n│      │           ^^\n│\n│   a list\n" +
				"│ word word word word word word word\n│ word word word word word\n╵\n",
		},
		"two places": {
			diagnostic.Diagnostic{Summary: "Twice", Subject: file.Range(1, 1, 3), Related: &diagnostic.Related{Message: "first", Range: file.Range(99, 999, 9)}}, diagnostic.Style{Width: 30},
			"╷\n│ Error: Twice\n│\n│   f.yaml:1:1\n│\n│    1 │ one: 1\n│      │ ^^^\n│\n│   f.yaml:3:208, first\n│\n│    3 │ …3333333333333333333\n│      │                     ^\n╵\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, diagnostic.Format(test.d, test.style)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestSorted(t *testing.T) {
	a, b := diagnostic.NewFile("a", "x\ny\nz"), diagnostic.NewFile("b", "")
	at := func(f *diagnostic.File, line int, summary string) diagnostic.Diagnostic {
		return diagnostic.Diagnostic{Summary: summary, Subject: f.Range(line, 1, 1)}
	}
	warning := at(a, 2, "warning")
	warning.Severity = diagnostic.Warning
	list := diagnostic.List{at(b, 1, "b1"), at(a, 3, "a3"), warning, at(a, 2, "a2"), at(a, 1, "a1"), at(a, 3, "a3")}
	var got []string
	for _, d := range list.Sorted() {
		got = append(got, d.Summary)
	}
	if diff := cmp.Diff([]string{"b1", "a1", "a2", "warning", "a3"}, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if errs := list.Errors(); len(errs) != 5 || errs.Sorted()[2].Summary != "a2" {
		t.Errorf("the errors are %v", errs)
	}
	if !list.HasErrors() || (diagnostic.List{warning}).HasErrors() || len(list) != 6 {
		t.Error("a warning is no error, and sorting changes nothing")
	}
}

func TestNearest(t *testing.T) {
	for _, test := range []struct{ word, candidates, want string }{
		{"profil", "profile pool", "profile"},
		{"imgae", "image env", "image"},
		{"EmptyDir", "emptyDir", "emptyDir"},
		{"ab", "xy", ""},
		{"a", "b", ""},
		{"restrict", "privileged baseline restricted", "restricted"},
		{"übung", "ubung", "ubung"},
		{strings.Repeat("x", 100), strings.Repeat("x", 99), ""},
		{"", "a", ""},
	} {
		if got := diagnostic.Nearest(test.word, strings.Fields(test.candidates)); got != test.want {
			t.Errorf("%q among %q: %q, want %q", test.word, test.candidates, got, test.want)
		}
	}
}

func TestPath(t *testing.T) {
	for want, steps := range map[string][]any{
		"":                                   nil,
		"sandboxes.api.egress.allow[0]":      {"sandboxes", "api", "egress", "allow", 0},
		`labels["app.kubernetes.io/name"].x`: {"labels", "app.kubernetes.io/name", "x"},
		`[""][1]`:                            {"", 1},
	} {
		if got := diagnostic.Path(steps...); got != want {
			t.Errorf("%v: %s, want %s", steps, got, want)
		}
	}
}

func TestQuote(t *testing.T) {
	if got := diagnostic.Quote("a\x1b\u202e\"ü"); got != `"a\x1b\u202e\"ü"` {
		t.Error(got)
	}
	if got := []rune(diagnostic.Quote(strings.Repeat("ü", 500))); len(got) != 82 {
		t.Errorf("%d characters", len(got))
	}
}

func TestPositions(t *testing.T) {
	file := diagnostic.NewFile("f", "äb\nc\r\n")
	for offset, want := range []diagnostic.Position{{1, 1}, {1, 2}, {1, 2}, {1, 3}, {2, 1}, {2, 2}, {2, 3}, {3, 1}, {3, 1}} {
		if got := file.Position(offset); offset != 1 && got != want { // 1 is within a character
			t.Errorf("%d: %v, want %v", offset, got, want)
		}
	}
	if file.Lines() != 3 || file.Line(2) != "c" || file.Line(0)+file.Line(4) != "" {
		t.Errorf("%d lines, the second %q", file.Lines(), file.Line(2))
	}
	if got := (diagnostic.Range{}).String(); got != "" {
		t.Error(got)
	}
}

// TestJSON pins the names that programs read.
func TestJSON(t *testing.T) {
	file := diagnostic.NewFile("f.yaml", "a: b")
	got, err := json.Marshal(diagnostic.List{
		{Summary: "S", Detail: "D", Path: "a", Subject: file.Range(1, 4, 1), Related: &diagnostic.Related{Message: "M", Range: file.Range(1, 1, 1)}},
		{Severity: diagnostic.Warning, Summary: "W"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"severity":"error","summary":"S","detail":"D","path":"a","subject":{"file":"f.yaml","start":{"line":1,"column":4},"end":{"line":1,"column":5}},` +
		`"related":{"message":"M","range":{"file":"f.yaml","start":{"line":1,"column":1},"end":{"line":1,"column":2}}}},{"severity":"warning","summary":"W"}]`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	d := diagnostic.Diagnostic{Summary: "S", Detail: "D\nE", Subject: file.Range(1, 4, 1)}
	if got := d.String(); got != "f.yaml:1:4: error: S: D E" {
		t.Error(got)
	}
}
