package reconcile

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentpane/sandboxctl/reconcile/audit"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// recordsOf are the events that a change is recorded as, each with the hosts that
// it names.
func recordsOf(t *testing.T, change plan.Change, make func() (plan.Change, error)) []string {
	t.Helper()
	var out bytes.Buffer
	r := &Reconciler{now: time.Now, audit: audit.NewRecorder(audit.NewStream(&out), time.Now, "the test")}
	if _, err := r.audited(change, make); err != nil && !errors.Is(err, errUntouched) {
		t.Fatal(err)
	}
	var events []string
	for line := range strings.Lines(out.String()) {
		var record audit.Record
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatal(err)
		}
		event := string(record.Event)
		if hosts, ok := record.Metadata["hosts"].([]any); ok {
			for _, host := range hosts {
				event += " " + host.(string)
			}
		}
		events = append(events, event)
	}
	return events
}

// TestHostsAreAudited: that the hosts which are allowed change is an event of its
// own, and names them.
func TestHostsAreAudited(t *testing.T) {
	const file = `apiVersion: agentpane.io/v1alpha1
kind: SandboxFleet
name: f
templates:
  t: {image: i, egress: {allow: [{host: b.example}, {host: a.example, ports: [22, 443]}]}}
sandboxes:
  a: {template: t}
`
	fleets, found := schema.Load([]string{"-"}, strings.NewReader(file))
	if found.HasErrors() {
		t.Fatal(found)
	}
	objects, found := render.Objects(fleets[0])
	if found.HasErrors() {
		t.Fatal(found)
	}
	i := slices.IndexFunc(objects, func(o render.Object) bool { return o.Object.GetKind() == "ConfigMap" })
	change := plan.Change{Ref: plan.RefOf(objects[i].Object), Action: plan.Update, Desired: objects[i].Object, Labels: objects[i].Object.GetLabels()}
	got := recordsOf(t, change, func() (plan.Change, error) { return change, nil })
	if diff := cmp.Diff([]string{"fleet.object_updated a.example b.example", "config.egress_hosts_updated a.example b.example"}, got); diff != "" {
		t.Error(diff)
	}
}

// TestWhatIsLeftIsNotAudited: a pool's pod that was claimed meanwhile is left
// alone, which is no event.
func TestWhatIsLeftIsNotAudited(t *testing.T) {
	change := plan.Change{Ref: plan.Ref{Name: "agentpane-warm-p-0"}, Action: plan.Delete, Labels: map[string]string{render.WarmStateLabel: render.Warm}}
	change.Ref.Kind = "Pod"
	if got := recordsOf(t, change, func() (plan.Change, error) { return change, errUntouched }); len(got) > 0 {
		t.Errorf("got %q, want nothing", got)
	}
	if got := recordsOf(t, change, func() (plan.Change, error) { return change, nil }); !slices.Equal(got, []string{"warm_pool.pod_deleted"}) {
		t.Errorf("got %q, want its end", got)
	}
}
