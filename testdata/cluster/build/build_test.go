package build

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func newTestBuilder(t *testing.T) Builder {
	return Builder{Cache: t.TempDir(), Step: func(string) func(error) { return func(error) {} }}
}

// TestCachedIsWholeOrAbsent: what a failed or killed build left behind is
// never taken for the real thing.
func TestCachedIsWholeOrAbsent(t *testing.T) {
	builder := newTestBuilder(t)
	_, err := builder.cached("thing", []string{"v1"}, func(path string) error {
		if err := os.WriteFile(path, []byte("half"), 0o644); err != nil {
			t.Fatal(err)
		}
		return errors.New("killed")
	})
	if err == nil {
		t.Fatal("a failed build is no error")
	}
	path, err := builder.cached("thing", []string{"v1"}, func(path string) error {
		return os.WriteFile(path, []byte("whole"), 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	if content, _ := os.ReadFile(path); string(content) != "whole" {
		t.Errorf("got %q from the cache, want what was built after the failure", content)
	}
}

func TestCachedBuildsOncePerInputs(t *testing.T) {
	builder := newTestBuilder(t)
	built := 0
	paths := map[string]bool{}
	for _, inputs := range [][]string{{"a", "b"}, {"a", "b"}, {"ab"}, {"a", "c"}} {
		path, err := builder.cached("thing", inputs, func(path string) error {
			built++
			return os.WriteFile(path, nil, 0o644)
		})
		if err != nil {
			t.Fatal(err)
		}
		paths[path] = true
	}
	if built != 3 || len(paths) != 3 {
		t.Errorf("built %d times into %d files, want 3: the second inputs are the first ones again", built, len(paths))
	}
}

func TestLinkerFlagsFollowTheRequiredVersion(t *testing.T) {
	dir := t.TempDir()
	mod := "module x\n\nrequire k8s.io/kubernetes v1.37.2\n"
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(mod), 0o644); err != nil {
		t.Fatal(err)
	}
	flags, err := linkerFlags(dir, "k8s.io/kubernetes")
	const pkg = "k8s.io/component-base/version"
	want := "-s -w -X " + pkg + ".gitVersion=v1.37.2 -X " + pkg + ".gitMajor=1 -X " + pkg + ".gitMinor=37"
	if err != nil || flags != want {
		t.Errorf("got %q, %v\nwant %q", flags, err, want)
	}
	if _, err := linkerFlags(dir, "example.org/other"); err == nil {
		t.Error("a module that is not required has no version, and that is no error")
	}
}
