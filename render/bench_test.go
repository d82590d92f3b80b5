package render_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/agentpane/sandboxctl/render"
)

// BenchmarkObjects renders 10,000 sandboxes of a template, which has a patch or has none.
func BenchmarkObjects(b *testing.B) {
	for _, patch := range []string{"{}", "{nodeSelector: {example.com/pool: sandboxes}}"} {
		var file strings.Builder
		fmt.Fprintf(&file, "apiVersion: agentpane.io/v1alpha1\nkind: SandboxFleet\nname: team-a\ntemplates:\n"+
			"  node: {image: \"x.io/node:1\", pod: %s}\nsandboxes:\n", patch)
		for i := range 10_000 {
			fmt.Fprintf(&file, "  s%d: {template: node, env: {N: %q}}\n", i, fmt.Sprint(i))
		}
		fleet := load(b, []byte(file.String()))
		b.Run("patch="+patch, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, found := render.Objects(fleet); found.HasErrors() {
					b.Fatal(found)
				}
			}
		})
	}
}
