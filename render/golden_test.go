package render_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

var update = flag.Bool("update", false, "write the expected results anew")

// TestGolden holds each fleet to all that is rendered and said of it. Rendering twice gives the same bytes.
func TestGolden(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no archives, error %v", err)
	}
	for _, path := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			file, want := archive.Files[0], archive.Files[1:]
			got := rendered(t, file.Data)
			for range 5 {
				if diff := cmp.Diff(got, rendered(t, file.Data)); diff != "" {
					t.Fatalf("rendered again, it is another: %s", diff)
				}
			}
			if *update {
				archive.Files = append(archive.Files[:1:1], got...)
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				want = got
			}
			if diff := cmp.Diff(text(want), text(got)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// rendered returns what is said of a fleet, if anything, and its objects, if they are of use.
func rendered(t *testing.T, content []byte) []txtar.File {
	t.Helper()
	fleet := load(t, content)
	objects, found := render.Objects(fleet)
	if n, checked := render.Check(fleet); n != len(objects) || said(checked) != said(found) {
		t.Errorf("Check finds %d objects and\n%s, Objects finds %d and\n%s", n, said(checked), len(objects), said(found))
	}
	var files []txtar.File
	if said := said(found); said != "" {
		files = append(files, txtar.File{Name: "found", Data: []byte(said)})
	}
	if found.HasErrors() {
		return files
	}
	stream, err := render.YAML(objects)
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, txtar.File{Name: "objects.yaml", Data: stream})
	if stream = pooled(t, fleet, objects); len(stream) > 0 {
		files = append(files, txtar.File{Name: "pools.yaml", Data: stream})
	}
	return files
}

// pooled returns, of each pool, a warm pod with its volume and what a claim makes of it, and then each sandbox as it is
// on a warm pod.
func pooled(t *testing.T, fleet *schema.Fleet, objects []render.Object) []byte {
	t.Helper()
	pools, err := render.Pools(fleet)
	if err != nil {
		t.Fatal(err)
	}
	var all []render.Object
	show := func(object *unstructured.Unstructured) {
		if object != nil {
			all = append(all, render.Object{Object: object})
		}
	}
	for _, pool := range pools {
		pod, volume := pool.WarmPod(3, "abcd")
		show(pod)
		show(volume)
		show(render.OnPod(pool.Claimed(render.Claim{
			Sandbox: "claimed", Project: "p", Env: map[string]string{"MORE": "1"},
			Annotations: map[string]string{render.LeaseUntilAnnotation: "2030-01-01T00:00:00Z"},
		}), pod.GetName(), render.WorkspaceOf(pod)))
	}
	for _, object := range objects {
		if object.Adopted != nil {
			show(object.Adopted)
		}
	}
	stream, err := render.YAML(all)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func said(found diagnostic.List) string {
	var said strings.Builder
	for _, d := range found.Sorted() {
		said.WriteString(diagnostic.Format(d, diagnostic.Style{Width: 120}))
	}
	return said.String()
}

func text(files []txtar.File) string { return string(txtar.Format(&txtar.Archive{Files: files})) }

// load returns the fleet of a file that the schema finds nothing wrong with.
func load(t testing.TB, content []byte) *schema.Fleet {
	t.Helper()
	fleets, found := schema.Load([]string{"-"}, bytes.NewReader(content))
	if found.HasErrors() || len(fleets) != 1 {
		t.Fatalf("%d fleets: %v", len(fleets), found)
	}
	return fleets[0]
}
