package schema

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"sigs.k8s.io/yaml"

	"github.com/agentpane/sandboxctl/schema/diagnostic"
	"github.com/agentpane/sandboxctl/schema/internal/shape"
)

// FuzzLoad reads anything as a fleet. It never panics, every finding is at a place in the file and can be drawn, and
// what is valid is a fleet with a name that is the same fleet when it is read again.
func FuzzLoad(f *testing.F) {
	fuzz(f, "sandboxes.yaml", ".yaml")
}

// FuzzLoadCUE does the same with CUE.
func FuzzLoadCUE(f *testing.F) {
	f.Add("name: \"a\"\nsandboxes: {for n in [1, 2] {\"s\\(n)\": #Sandbox & {image: \"a\"}}}\n")
	fuzz(f, "sandboxes.cue", ".cue")
}

func fuzz(f *testing.F, name, extension string) {
	for _, seed := range seeds(f, extension) {
		f.Add(seed)
	}
	compiled, err := shape.Compile(cueSource, formats())
	if err != nil {
		f.Fatal(err)
	}
	read := func(content string) (*diagnostic.File, *loader) {
		file := diagnostic.NewFile(name, content)
		l := &loader{schema: compiled}
		l.parse(file)
		return file, l
	}
	f.Fuzz(func(t *testing.T, content string) {
		file, l := read(content)
		for _, d := range l.found {
			inside(t, file, d.Subject)
			if d.Related != nil {
				inside(t, file, d.Related.Range)
			}
			diagnostic.Format(d, diagnostic.Style{Width: 80, Color: true})
		}
		if l.found.HasErrors() != (len(l.fleets) == 0) {
			t.Fatalf("%d fleets, and %v", len(l.fleets), l.found)
		}
		if len(l.fleets) == 0 {
			return
		}
		_, again := read(content)
		if diff := cmp.Diff(fleetText(t, l.fleets[0]), fleetText(t, again.fleets[0])); diff != "" || l.fleets[0].Name == "" {
			t.Fatalf("fleet %q, read again: %s", l.fleets[0].Name, diff)
		}
	})
}

// inside fails the test when the range is not a part of the file.
func inside(t *testing.T, file *diagnostic.File, r diagnostic.Range) {
	t.Helper()
	if r.File != file || r.Start.Line < 1 || r.Start.Line > file.Lines() || r.End.Line != r.Start.Line || r.Start.Column < 1 ||
		r.End.Column < r.Start.Column || r.End.Column > len([]rune(file.Line(r.Start.Line)))+1 {
		t.Fatalf("%+v is not in the file", r)
	}
}

func fleetText(t *testing.T, f *Fleet) string {
	t.Helper()
	text, err := yaml.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// seeds returns the examples and the faulty inputs that the goldens have.
func seeds(f *testing.F, extension string) []string {
	f.Helper()
	var found []string
	archives, _ := filepath.Glob("testdata/*.txtar")
	for _, name := range archives {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range archive.Files {
			if filepath.Ext(file.Name) == extension {
				found = append(found, string(file.Data))
			}
		}
	}
	examples, _ := filepath.Glob("../examples/*/*" + extension)
	for _, name := range examples {
		content, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		found = append(found, string(content))
	}
	return found
}
