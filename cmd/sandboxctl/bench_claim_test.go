//go:build bench

package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/agentpane/sandboxctl/reconcile/claim"
	"github.com/agentpane/sandboxctl/reconcile/clustertest"
	"github.com/agentpane/sandboxctl/reconcile/sandbox"
)

// claimedFleet has the limits that a file gets which says nothing: a command
// starts within its container's share of the processors.
const claimedFleet = `apiVersion: agentpane.io/v1alpha1
kind: SandboxFleet
name: bench-claim
namespace: sandboxctl-bench-claim
limits: {min: {cpu: 1m, memory: 4Mi}}
templates:
  t:
    image: ` + clustertest.SandboxImage + `
    resources: {requests: {cpu: 1m, memory: 4Mi}}
    workspace: {emptyDir: 10Mi}
pools:
  p: {template: t, min: 10, max: 20, autoscale: false}
`

// BenchmarkClaimToOutput claims warm pods as a program does, and runs a first
// command in each, until its output is there; then the same command once more.
func BenchmarkClaimToOutput(b *testing.B) {
	sandboxctl := program(b)
	file := filepath.Join(b.TempDir(), "sandboxes.yaml")
	if err := os.WriteFile(file, []byte(claimedFleet), 0o644); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { timed(b, sandboxctl, "destroy", "--yes", "-f", file) })
	fleet, config := loaded(b, file)
	claims, err := claim.New(config, fleet, time.Now, claim.RandomText, "the benchmark")
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	wait, err := claims.Start(ctx)
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		cancel()
		wait()
	}()
	sandboxes, err := sandbox.New(config, fleet)
	if err != nil {
		b.Fatal(err)
	}
	run := func(name string) {
		pod, err := sandboxes.FindRunning(b.Context(), name)
		if err != nil {
			b.Fatal(err)
		}
		output, err := sandboxes.Output(b.Context(), pod, sandbox.Command{Args: []string{"echo", "ready"}}, 100)
		if err != nil || output.Stdout != "ready\n" {
			b.Fatalf("%+v, %v", output, err)
		}
	}
	var first, second []time.Duration
	for b.Loop() {
		timed(b, sandboxctl, "apply", "--yes", "-f", file)
		var names []string
		for range 10 {
			begun := time.Now()
			claimed, err := claims.Claim(b.Context(), claim.Request{Pool: "p"})
			if err != nil {
				b.Fatal(err)
			}
			run(claimed.Name)
			first = append(first, time.Since(begun))
			if !claimed.Warm {
				b.Errorf("%s started cold", claimed.Name)
			}
			begun = time.Now()
			run(claimed.Name)
			second = append(second, time.Since(begun))
			names = append(names, claimed.Name)
		}
		for _, name := range names { // the end of one would slow the start of the next
			if _, err := claims.Release(b.Context(), name); err != nil {
				b.Fatal(err)
			}
		}
	}
	p50 := func(times []time.Duration) float64 {
		slices.Sort(times)
		return float64(times[len(times)/2].Microseconds()) / 1000
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(p50(first), "p50-ms-claim-to-output")
	b.ReportMetric(p50(second), "p50-ms-second-command")
}
