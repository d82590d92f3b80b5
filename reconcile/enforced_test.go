//go:build integration && internet

package reconcile_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/agentpane/sandboxctl/reconcile"
	"github.com/agentpane/sandboxctl/reconcile/audit"
	"github.com/agentpane/sandboxctl/reconcile/enforcement"
	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// TestNotEnforcedIsRefused: where what the probe's policy forbids is reached all
// the same (here by another policy, which allows it), no pod is made, unless the
// file accepts that; and where it is not, the verdict is kept for the next apply.
func TestNotEnforcedIsRefused(t *testing.T) {
	b := newBench(t)
	reconciler, err := reconcile.New(b.cluster.Config, time.Now, "the test", reconcile.WithEnforcement())
	if err != nil {
		t.Fatal(err)
	}
	b.reconciler = reconciler
	policies := b.cluster.Client.NetworkingV1().NetworkPolicies(b.namespace)
	open, err := policies.Create(t.Context(), &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "open"},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{render.ComponentLabel: render.ProbeComponent}},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
			Egress:      []networkingv1.NetworkPolicyEgressRule{{}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	const sandboxes = "  a: {template: t, egress: {allow: []}}\n"
	fleet, p := b.plan(sandboxes, reconcile.Options{})
	_, err = reconciler.Apply(t.Context(), fleet, p, b.tell)
	if failure.CodeOf(err) != failure.NetworkIsolationUnsupported || !strings.Contains(err.Error(), "does not enforce") {
		t.Errorf("got %v, want a refusal", err)
	}
	if len(b.pods()) != 0 {
		t.Errorf("there are pods: %v", b.pods())
	}

	accepting := *fleet
	accepting.Egress.Unenforced = schema.Allow
	_, p = b.plan(sandboxes, reconcile.Options{})
	if _, err := reconciler.Apply(t.Context(), &accepting, p, b.tell); err != nil || len(b.pods()) != 1 {
		t.Errorf("got %v and %d pods, want the file's word to count", err, len(b.pods()))
	}

	if err := policies.Delete(t.Context(), open.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	result, err := reconciler.Enforcement(t.Context(), fleet, false)
	if err != nil || result.Verdict != enforcement.Enforced {
		t.Fatalf("got %+v, %v; want it enforced", result, err)
	}
	again, err := reconciler.Enforcement(t.Context(), fleet, false)
	if err != nil || again != result {
		t.Errorf("got %+v, %v; want the verdict that is known, %+v", again, err, result)
	}
	if _, after := b.plan(sandboxes, reconcile.Options{}); !after.Empty() {
		t.Errorf("the verdict changes what is applied: %s", describe(after))
	}
	left, err := b.cluster.Client.CoreV1().Pods(b.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: render.ComponentLabel + "=" + render.ProbeComponent})
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range left.Items {
		if pod.DeletionTimestamp == nil {
			t.Errorf("the probe left %s behind", pod.Name)
		}
	}
}

// TestProbeIsInconclusive where its image cannot be had.
func TestProbeIsInconclusive(t *testing.T) {
	b := newBench(t)
	fleet, _ := b.fleet("  a: {template: t}\n")
	fleet.Egress.Image = "none.invalid/none:1"
	result, err := b.reconciler.Enforcement(t.Context(), fleet, true)
	if err != nil || result.Verdict != enforcement.Inconclusive || !strings.Contains(result.Reason, "none.invalid") {
		t.Errorf("got %+v, %v; want it inconclusive, and the image named", result, err)
	}
}

var podEvent = regexp.MustCompile(`"event":"pod\.([a-z]+)"`)

// TestApplyIsAudited: what is made, becomes ready and goes is in the log, which
// is whole; and where nothing can be recorded, nothing is done.
func TestApplyIsAudited(t *testing.T) {
	b := newBench(t)
	path := filepath.Join(t.TempDir(), "audit.log")
	log, err := audit.Open(path, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	b.reconciler, err = reconcile.New(b.cluster.Config, time.Now, "the test", reconcile.WithAudit(audit.NewRecorder(log, time.Now, "the test")))
	if err != nil {
		t.Fatal(err)
	}
	b.apply("  a: {template: t}\n", reconcile.Options{})
	b.apply("  a: {template: t, env: {NEW: pod}}\n", reconcile.Options{})
	b.apply("  a: {template: t, env: {NEW: pod}, state: stopped}\n", reconcile.Options{})
	if err := log.Close(); err != nil {
		t.Error(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var pod []string
	for line := range strings.Lines(string(content)) {
		if event := podEvent.FindStringSubmatch(line); event != nil {
			pod = append(pod, event[1])
		}
	}
	if got, want := strings.Join(pod, " "), "created started deleted created started stopped deleted"; got != want {
		t.Errorf("the pod was %s, want %s", got, want)
	}
	for _, want := range []audit.Event{
		audit.PSSValidationPassed, audit.NetworkPolicyCreated,
		audit.NetworkPolicyEnabled, audit.ServiceAccountCreated, audit.RoleCreated, audit.RoleBindingCreated, audit.ClusterRoleCreated, audit.ClusterRoleBindingCreated,
	} {
		if !bytes.Contains(content, []byte(`"event":"`+want+`"`)) {
			t.Errorf("no %s in the log", want)
		}
	}
	if report, err := audit.Verify(bytes.NewReader(content), ""); err != nil || !report.OK() {
		t.Errorf("%+v, %v", report, err)
	}

	fleet, p := b.plan("  a: {template: t}\n", reconcile.Options{})
	if err := os.RemoveAll(filepath.Dir(path)); err != nil { // no reserve can be set aside any more
		t.Fatal(err)
	}
	if _, err := b.reconciler.Apply(t.Context(), fleet, p, b.tell); err == nil || !strings.Contains(err.Error(), "nothing is changed") {
		t.Errorf("got %v, want it refused", err)
	}
	if len(b.pods()) != 0 {
		t.Error("a pod was made that could not be recorded")
	}
}
