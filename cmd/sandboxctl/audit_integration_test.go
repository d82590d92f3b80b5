//go:build integration

package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentpane/sandboxctl/reconcile/audit"
)

// auditedShell is a shell whose commands are recorded.
type auditedShell struct {
	*shell
	log  string
	read int // how many records of the log are known
}

// recorded runs a command, which must end with that code, and returns what it
// has added to the log.
func (s *auditedShell) recorded(code int, args ...string) []audit.Record {
	s.Helper()
	verb := 1
	if args[0] == "session" {
		verb = 2
	}
	s.expect(code, "", "", slices.Concat(args[:verb], []string{"--audit-log", s.log}, args[verb:])...)
	records := auditRecords(s.T, s.log)
	fresh := records[s.read:]
	s.read = len(records)
	return fresh
}

// auditRecords are the records of a log, which must be whole.
func auditRecords(t *testing.T, log string) []audit.Record {
	t.Helper()
	if code, stdout, stderr := sandboxctl(t, "audit", "verify", log); code != 0 || !strings.Contains(stdout, " is whole: ") {
		t.Errorf("audit verify: %d\n%s%s", code, stdout, stderr)
	}
	content, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var records []audit.Record
	for line := range bytes.Lines(content) {
		var record audit.Record
		if err := json.Unmarshal(line, &record); err != nil {
			t.Fatal(err)
		}
		records = append(records, record)
	}
	return records
}

// leaves runs a command that must be recorded as exactly these events, "," between
// them.
func (s *auditedShell) leaves(events string, args ...string) []audit.Record {
	s.Helper()
	records := s.recorded(0, args...)
	s.are(args, records, events)
	return records
}

func (s *auditedShell) are(args []string, records []audit.Record, events string) {
	s.Helper()
	var got []string
	for _, record := range records {
		got = append(got, string(record.Event))
	}
	if diff := cmp.Diff(events, strings.Join(got, ",")); diff != "" {
		s.Errorf("%q (-want +got):\n%s", args, diff)
	}
}

// holds expects numbers in an event's metadata.
func (s *auditedShell) holds(record audit.Record, want map[string]float64) {
	s.Helper()
	for name, number := range want {
		if got := record.Metadata[name]; got != number {
			s.Errorf("%s has %v as %s, want %v", record.Event, got, name, number)
		}
	}
}

// TestEverythingIsAudited: each command that changes something, or does something
// in a sandbox, leaves exactly its events, in the order in which it did that.
func TestEverythingIsAudited(t *testing.T) {
	s := &auditedShell{shell: newShell(t), log: filepath.Join(t.TempDir(), "audit.log")}
	const pool = "min: 1, max: 5, autoscale: false"
	s.pooled("file", "{emptyDir: 10Mi}", pool, "  {}\n")
	first := s.recorded(0, "apply", "--yes")
	counts := map[audit.Event]int{}
	for _, record := range first {
		counts[record.Event]++
	}
	want := map[audit.Event]int{
		audit.NetworkPolicyCreated: 1, audit.NetworkPolicyEnabled: 1, audit.ServiceAccountCreated: 1, audit.RoleCreated: 1, audit.RoleBindingCreated: 1,
		audit.ClusterRoleCreated: 1, audit.ClusterRoleBindingCreated: 1, audit.ObjectCreated: 1, audit.WarmPoolDiscovery: 1, audit.WarmPoolPodCreated: 1, audit.PSSValidationPassed: 1,
		audit.WarmPoolPrewarm: 1, audit.PodStarted: 1,
	}
	if diff := cmp.Diff(want, counts); diff != "" {
		t.Errorf("apply (-want +got):\n%s", diff)
	}
	const poolEvents = "warm_pool.discovery,warm_pool.pod_created,security.pss_validation_passed,warm_pool.prewarm"
	made := first[len(first)-5:]
	s.are([]string{"apply"}, made, poolEvents+",pod.started")
	s.holds(made[0], map[string]float64{"warmPodsDiscovered": 0, "allocatedPodsDiscovered": 0})
	s.holds(made[3], map[string]float64{"requested": 1, "created": 1, "currentPoolSize": 1})

	s.pooled("file", "{emptyDir: 10Mi}", pool, "  api: {pool: p, project: shop}\n")
	adopted := s.leaves("warm_pool.allocation,"+poolEvents+",pod.started", "apply", "--yes")
	s.holds(adopted[0], map[string]float64{"remainingWarmPods": 0})
	s.holds(adopted[1], map[string]float64{"warmPodsDiscovered": 0, "allocatedPodsDiscovered": 1})
	if about := adopted[0].About; about.SandboxID != "api" || about.ProjectID != "shop" || about.ResourceName != s.pods()["api"][0].Name {
		t.Errorf("the adoption is about %+v", about)
	}
	s.leaves("", "apply", "--yes")

	claimed := s.leaves("warm_pool.allocation", "claim", "--pool", "p", "--name", "run-1")
	if _, measured := claimed[0].Metadata["allocationTimeMs"]; !measured || claimed[0].SandboxID != "run-1" {
		t.Errorf("the claim is recorded as %+v", claimed[0])
	}
	s.leaves("", "claim", "--pool", "p", "--name", "run-1")
	s.leaves("pod.updated", "claim", "--renew", "--name", "run-1", "--ttl", "10m")
	s.leaves("pod.created,security.pss_validation_passed,pod.started", "claim", "--pool", "p") // a cold one
	more := s.leaves(poolEvents, "pool", "prewarm", "p", "1")
	s.holds(more[3], map[string]float64{"requested": 1, "created": 1, "currentPoolSize": 4})

	ran := s.leaves("security.exec_command", "exec", "api", "--", "sh", "-c", "echo secret; tmux new-session -d -s work")
	if got := ran[0].Metadata; got["command"] != "sh" || got["exitCode"] != 0.0 || got["arguments"] != 2.0 {
		t.Errorf("exec is recorded as %v", got)
	}
	s.are([]string{"root"}, s.recorded(1, "exec", "api", "--user", "root", "--", "id"), "security.exec_as_root_attempted")
	copied := s.leaves("security.files_copied", "cp", s.file, "api:/workspace/fleet")
	s.holds(copied[0], map[string]float64{"files": 1})
	s.leaves("security.files_copied", "cp", "api:/workspace/fleet", filepath.Join(t.TempDir(), "back"))
	s.leaves("security.session_command", "session", "capture", "api", "work")
	s.leaves("security.session_command", "session", "send", "api", "work", "--enter", "true")
	s.leaves("security.session_command", "session", "kill", "api", "work")
	s.leaves("pod.deleted", "release", "run-1")

	// A session of the file.
	s.pooled("file", "{emptyDir: 10Mi}", pool, "  api: {pool: p, project: shop, sessions: {agent: {windows: [{window_name: main, panes: [null]}]}}}\n")
	s.leaves("security.session_command", "apply", "--yes")

	// What cannot be recorded is not done.
	s.expect(1, "", "the audit log", "exec", "--audit-log", filepath.Join(t.TempDir(), "none", "log"), "api", "--", "touch", "/workspace/done")
	s.expect(1, "", "", "exec", "api", "--", "test", "-e", "/workspace/done")
	s.gone()

	content, err := os.ReadFile(s.log)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(content, []byte("secret")) {
		t.Error("an argument is in the log")
	}
}

// gone ends the fleet, and looks whether the sandboxes' pods and the pools' are
// told apart.
func (s *auditedShell) gone() {
	s.Helper()
	names := map[audit.Event]map[string]bool{}
	for _, record := range s.recorded(0, "destroy", "--yes") {
		if names[record.Event] == nil {
			names[record.Event] = map[string]bool{}
		}
		names[record.Event][record.SandboxID] = true
	}
	if got := slices.Collect(maps.Keys(names[audit.WarmPoolPodDeleted])); !slices.Equal(got, []string{""}) {
		s.Errorf("the pool's pods went as those of %q", got)
	}
	if deleted := names[audit.PodDeleted]; len(deleted) != 2 || !deleted["api"] || deleted[""] {
		s.Errorf("the pods of sandboxes went as those of %v", deleted)
	}
	if len(names[audit.NetworkPolicyDisabled]) == 0 || len(names[audit.RBACDeleted]) == 0 {
		s.Errorf("destroy left %v", names)
	}
}
