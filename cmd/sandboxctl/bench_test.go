//go:build bench

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// The benchmarks run the built program against the cluster that
// SANDBOXCTL_TEST_KUBECONFIG names, beside the peer where there is one, in one
// run: the machines are shared, and only ratios mean something. `make bench`
// runs them.

// program builds the program and returns its path.
func program(b *testing.B) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "sandboxctl")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		b.Fatalf("building the program: %v\n%s", err, out)
	}
	return path
}

// fleetFile writes a fleet of n sandboxes whose pods fit no node, so that the
// API server is all that works on them.
func fleetFile(b *testing.B, name string, n int) string {
	return fleetFileWith(b, name, n, "workspace: {size: 1Gi}, pod: {nodeSelector: {none: such}}")
}

// fleetFileWith writes a fleet of n sandboxes whose template has that, too.
func fleetFileWith(b *testing.B, name string, n int, template string) string {
	b.Helper()
	var file bytes.Buffer
	fmt.Fprintf(&file, `apiVersion: agentpane.io/v1alpha1
kind: SandboxFleet
name: %[1]s
namespace: sandboxctl-%[1]s
egress: {unenforced: allow} # what a probe of the cluster takes is not measured
templates:
  t: {image: "docker.io/agentpane/agent-sandbox:dev", resources: {cpu: 200m, memory: 512Mi}, %[2]s}
sandboxes:
`, name, template)
	for i := range n {
		fmt.Fprintf(&file, "  s%05d: {template: t, project: p%d}\n", i, i%100)
	}
	path := filepath.Join(b.TempDir(), "sandboxes.yaml")
	if err := os.WriteFile(path, file.Bytes(), 0o644); err != nil {
		b.Fatal(err)
	}
	return path
}

// timed runs a command and returns how long it took, and the most memory that
// it had, in MiB.
func timed(b *testing.B, command string, args ...string) (time.Duration, float64) {
	b.Helper()
	cmd := exec.Command(command, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+os.Getenv("SANDBOXCTL_TEST_KUBECONFIG"))
	start := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(start)
	if err != nil {
		b.Fatalf("%s %s: %v\n%s", filepath.Base(command), strings.Join(args, " "), err, out[max(0, len(out)-2000):])
	}
	return took, maxMemory(cmd.ProcessState)
}

// applied applies a fleet and removes it after the benchmark.
func applied(b *testing.B, program, file string) time.Duration {
	b.Helper()
	b.Cleanup(func() { timed(b, program, "destroy", "--yes", "-f", file) })
	took, _ := timed(b, program, "apply", "--yes", "--no-wait", "-f", file)
	return took
}

// BenchmarkPlanUnchanged compares plan with kubectl diff on 1000 objects that
// are as they should be.
func BenchmarkPlanUnchanged(b *testing.B) {
	sandboxctl := program(b)
	const objects = 1000
	file := fleetFile(b, "bench-plan", (objects-10)/2)
	applied(b, sandboxctl, file)
	manifests := filepath.Join(b.TempDir(), "objects.yaml")
	rendered, err := exec.Command(sandboxctl, "render", "-f", file).Output()
	if err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(manifests, rendered, 0o644); err != nil {
		b.Fatal(err)
	}
	var ours, theirs time.Duration
	for b.Loop() {
		took, _ := timed(b, sandboxctl, "plan", "--detailed-exitcode", "-f", file)
		ours += took
		took, _ = timed(b, "kubectl", "diff", "--server-side", "--field-manager=sandboxctl", "--concurrency=16", "-f", manifests)
		theirs += took
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ours.Seconds()/float64(b.N), "s/plan")
	b.ReportMetric(theirs.Seconds()/float64(b.N), "s/kubectl-diff")
	b.ReportMetric(theirs.Seconds()/ours.Seconds(), "times-faster")
}

// BenchmarkValidate10000 validates 10,000 sandboxes.
func BenchmarkValidate10000(b *testing.B) {
	sandboxctl := program(b)
	file := fleetFileWith(b, "bench-validate", 10_000, "workspace: {size: 1Gi}")
	var took time.Duration
	var memory float64
	for b.Loop() {
		t, m := timed(b, sandboxctl, "validate", "-f", file)
		took, memory = took+t, max(memory, m)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(took.Seconds()/float64(b.N), "s/validate")
	b.ReportMetric(memory, "MiB")
}

// BenchmarkApply compares the apply of 1000 new objects with bare PATCHes of as
// many, 16 at a time.
func BenchmarkApply(b *testing.B) {
	sandboxctl := program(b)
	var ours, bare time.Duration
	for b.Loop() {
		file := fleetFile(b, "bench-apply", 495)
		took, _ := timed(b, sandboxctl, "apply", "--yes", "--no-wait", "-f", file)
		ours += took
		timed(b, sandboxctl, "destroy", "--yes", "-f", file)
		bare += patchAll(b, file)
		timed(b, sandboxctl, "destroy", "--yes", "-f", file)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ours.Seconds()/float64(b.N), "s/apply")
	b.ReportMetric(bare.Seconds()/float64(b.N), "s/bare-patches")
	b.ReportMetric(ours.Seconds()/bare.Seconds(), "times-as-long")
}

// loaded reads the fleet of a file, and how the cluster is reached.
func loaded(b *testing.B, file string) (*schema.Fleet, *rest.Config) {
	b.Helper()
	fleets, found := schema.Load([]string{file}, nil)
	if found.HasErrors() {
		b.Fatal(found)
	}
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("SANDBOXCTL_TEST_KUBECONFIG"))
	if err != nil {
		b.Fatal(err)
	}
	config.QPS = -1
	return fleets[0], config
}

// patchAll applies the fleet's objects with nothing around it.
func patchAll(b *testing.B, file string) time.Duration {
	b.Helper()
	fleet, config := loaded(b, file)
	objects, found := render.Objects(fleet)
	if found.HasErrors() {
		b.Fatal(found)
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		b.Fatal(err)
	}
	start := time.Now()
	for len(objects) > 0 { // wave by wave: a pod needs its namespace
		group, ctx := errgroup.WithContext(context.Background())
		group.SetLimit(16)
		wave := objects[0].Wave
		for len(objects) > 0 && objects[0].Wave == wave {
			object := objects[0]
			objects = objects[1:]
			group.Go(func() error { return patchOne(ctx, client, object) })
		}
		if err := group.Wait(); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(start)
}

func patchOne(ctx context.Context, client dynamic.Interface, object render.Object) error {
	body, err := json.Marshal(object.Object)
	if err != nil {
		return err
	}
	resource := client.Resource(render.KindOf(object.Object.GroupVersionKind()).Resource)
	_, err = resource.Namespace(object.Object.GetNamespace()).Patch(ctx, object.Object.GetName(),
		types.ApplyPatchType, body, metav1.PatchOptions{FieldManager: "sandboxctl"})
	return err
}
