package main

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/agentpane/sandboxctl/reconcile/claim"
	"github.com/agentpane/sandboxctl/reconcile/doctor"
	"github.com/agentpane/sandboxctl/reconcile/enforcement"
	"github.com/agentpane/sandboxctl/reconcile/session"
)

// TestJSONLeavesNothingOut: what is not known is null, a text that there is none
// of is empty, and a pod is the same everywhere.
func TestJSONLeavesNothingOut(t *testing.T) {
	fleet := loadFleet(t, "  a: {template: t}\n  b: {template: t, state: stopped}\n")
	state := session.State{Sessions: []session.Session{{Name: "s", Windows: []session.Window{{Name: "w", Panes: []session.Pane{{}, {Index: 1, Dead: true}}}}}}}
	for name, test := range map[string]struct {
		value any
		want  string
	}{
		"session ls": {sessionsInfo{formatVersion, "f", "n", sessionRows("a", fleet.Sandboxes[0], state)}, `{"formatVersion":"1","fleet":"f","namespace":"n","sessions":[` +
			`{"name":"s","sandbox":"a","taskId":"","declared":false,"present":true,"managed":false,"windows":1,"attached":0,"created":"0001-01-01T00:00:00Z","activity":"0001-01-01T00:00:00Z","panes":[` +
			`{"name":"s:w.0","command":"","managed":false,"dead":false,"exitStatus":null,"signal":"","ended":null,"restarts":0,"lastLines":null},` +
			`{"name":"s:w.1","command":"","managed":false,"dead":true,"exitStatus":0,"signal":"","ended":null,"restarts":0,"lastLines":null}]}]}`},
		"top": {topRows(sandboxRows(fleet, []corev1.Pod{fleetPod(fleet, "a", 0, true)}), nil, nil), `[` +
			`{"name":"a","declared":true,"pod":{"name":"pod-a","namespace":"agentpane-sandboxes","uid":""},"cpuMillicores":null,"memoryBytes":null,"limits":{"cpu":"1","memory":"1Gi"}},` +
			`{"name":"b","declared":true,"pod":null,"cpuMillicores":null,"memoryBytes":null,"limits":{"cpu":"1","memory":"1Gi"}}]`},
		"release": {claimInfo{FormatVersion: formatVersion, Fleet: "f", claimedSandbox: claimedFrom(claim.Sandbox{Name: "a", Pod: "p", Namespace: "n", UID: "u"})},
			`{"formatVersion":"1","fleet":"f","name":"a","project":"","pool":"","pod":{"name":"p","namespace":"n","uid":"u"},"origin":"cold","milliseconds":0,"until":null,"again":false}`},
		"pool prewarm": {prewarmInfo{formatVersion, "f", "n", "p", 2, 1}, `{"formatVersion":"1","fleet":"f","namespace":"n","pool":"p","requested":2,"created":1}`},
		"doctor": {[]doctor.Finding{{Check: "egress", Level: doctor.OK, Enforcement: &enforcement.Result{Verdict: enforcement.Enforced, At: time.Unix(0, 0).UTC()}}, {Check: "clock"}},
			`[{"check":"egress","level":"ok","message":"","remedy":"","enforcement":{"verdict":"enforced","windowMs":0,"reason":"","at":"1970-01-01T00:00:00Z","probe":0}},` +
				`{"check":"clock","level":"","message":"","remedy":"","enforcement":null}]`},
	} {
		got, err := json.Marshal(test.value)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// fullDisk is a file that nothing can be written into.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

// TestOutputThatIsLost: a command whose output cannot be written has failed,
// which is said once.
func TestOutputThatIsLost(t *testing.T) {
	file := filepath.Join("..", "..", "examples", "quickstart", "sandboxes.yaml")
	for _, args := range [][]string{
		{"validate", "-f", file}, {"validate", "-f", file, "-o", "json"}, {"validate", "-f", file, "-o", "github"},
		{"init", t.TempDir()}, {"render", "-f", file}, {"explain", "K8S_POD_NOT_FOUND"}, {"version"}, {"version", "--help"},
	} {
		var stderr strings.Builder
		code := run(t.Context(), args, environment{stdin: strings.NewReader(""), stdout: fullDisk{}, stderr: &stderr, now: time.Now})
		if code != 1 || strings.Count(stderr.String(), "no space left on device") != 1 {
			t.Errorf("%v: exit code %d, %q", args, code, stderr.String())
		}
	}
}
