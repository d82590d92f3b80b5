package schema_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/cuecontext"
	cueyaml "cuelang.org/go/encoding/yaml"

	"github.com/agentpane/sandboxctl/schema"
)

// largeFleet returns a file of n sandboxes, each as a team would write it: 15 lines, some 50 values.
func largeFleet(n int) []byte {
	var b strings.Builder
	b.WriteString(header + "templates:\n  node: {image: \"ghcr.io/example/agent:1\"}\nsandboxes:\n")
	for i := range n {
		fmt.Fprintf(&b, `  sandbox-%05d:
    project: project-%03d
    template: node
    env: {NODE_ENV: development, INDEX: "%d"}
    resources: {cpu: "2", memory: 4Gi}
    egress:
      allow:
      - host: api.github.com
      - {host: "*.example.org", ports: [443, 8443]}
    sessions:
      agent:
        windows:
        - window_name: main
          panes:
          - claude
          - {shell_command: [npm, test], restart: on-failure}
`, i, i%200, i)
	}
	return []byte(b.String())
}

// BenchmarkValidate reads fleets of several sizes, and the largest with plain CUE as well. "peak-MB" is the most memory
// that the process has had from the system so far, so run one benchmark at a time to see it: -bench 'Validate/10000$'.
func BenchmarkValidate(b *testing.B) {
	for _, n := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "sandboxes.yaml")
			if err := os.WriteFile(path, largeFleet(n), 0o644); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if fleets, found := schema.Load([]string{path}, nil); len(fleets) != 1 {
					b.Fatal(found)
				}
			}
			reportPeak(b)
		})
	}
	b.Run("10000-plain-CUE", func(b *testing.B) {
		content := largeFleet(10_000)
		b.ReportAllocs()
		for b.Loop() {
			context := cuecontext.New()
			fleet := context.CompileString(schema.CUE()).LookupPath(cue.ParsePath("#Fleet"))
			file, err := cueyaml.Extract("sandboxes.yaml", content)
			if err != nil {
				b.Fatal(err)
			}
			if err := fleet.Unify(context.BuildFile(file)).Validate(cue.Concrete(true)); err != nil {
				b.Fatal(err)
			}
		}
		reportPeak(b)
	})
}

func reportPeak(b *testing.B) {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	b.ReportMetric(float64(stats.Sys)/(1<<20), "peak-MB")
}

// BenchmarkFaulty reads a large fleet in which every sandbox has a fault.
func BenchmarkFaulty(b *testing.B) {
	path := filepath.Join(b.TempDir(), "sandboxes.yaml")
	faulty := strings.ReplaceAll(string(largeFleet(10_000)), "on-failure", "on-error")
	if err := os.WriteFile(path, []byte(faulty), 0o644); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, found := schema.Load([]string{path}, nil); len(found) != 10_000 {
			b.Fatal(len(found))
		}
	}
}
