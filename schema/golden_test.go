package schema_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/agentpane/sandboxctl/schema"
	"github.com/agentpane/sandboxctl/schema/diagnostic"
	"github.com/agentpane/sandboxctl/schema/internal/shape"
)

var update = flag.Bool("update", false, "write the expected results anew")

// TestDiagnostics holds each faulty input to the whole of what is said about it. An archive is the files to load and
// "want"; a line "args: ..." in its comment names what to load when that is not all of the files in order. A file
// called stdin is standard input.
func TestDiagnostics(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) < 45 {
		t.Fatalf("%d archives, error %v", len(archives), err)
	}
	for _, path := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			got := diagnose(t, archive)
			want := &archive.Files[len(archive.Files)-1]
			if want.Name != "want" {
				archive.Files = append(archive.Files, txtar.File{Name: "want"})
				want = &archive.Files[len(archive.Files)-1]
			}
			if *update {
				want.Data = []byte(got)
				write(t, path, txtar.Format(archive))
			}
			if diff := cmp.Diff(string(want.Data), got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// diagnose loads the archive's files out of a directory of their own, and returns all that is said about them.
func diagnose(t *testing.T, archive *txtar.Archive) string {
	t.Helper()
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Chdir(dir)
	defer t.Chdir(root)
	var args []string
	stdin := ""
	for _, f := range archive.Files {
		switch f.Name {
		case "want":
		case "stdin":
			stdin = string(f.Data)
			args = append(args, "-")
		default:
			if err := os.MkdirAll(filepath.Dir(f.Name), 0o755); err != nil {
				t.Fatal(err)
			}
			write(t, f.Name, f.Data)
			args = append(args, f.Name)
		}
	}
	for line := range strings.Lines(string(archive.Comment)) {
		if named, ok := strings.CutPrefix(line, "args:"); ok {
			args = strings.Fields(named)
		}
	}
	fleets, found := schema.Load(args, strings.NewReader(stdin))
	var b strings.Builder
	for _, d := range found {
		b.WriteString(diagnostic.Format(d, diagnostic.Style{Width: 100}))
	}
	for _, f := range fleets {
		b.WriteString("loaded " + f.Name + "\n")
	}
	return b.String()
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestJSONSchemaIsCurrent keeps the committed JSON Schema what the CUE schema says.
func TestJSONSchemaIsCurrent(t *testing.T) {
	compiled, err := shape.Compile(schema.CUE(), nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := compiled.JSONSchema("#Fleet")
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		write(t, "sandboxes.schema.json", got)
		return // what is embedded is the file as it was
	}
	if diff := cmp.Diff(schema.JSONSchema(), string(got)); diff != "" {
		t.Errorf("run the tests with -update: -committed +generated\n%s", diff)
	}
}
