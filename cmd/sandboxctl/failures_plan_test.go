//go:build integration

package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/agentpane/sandboxctl/reconcile/audit"
	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/render"
)

func expectSame(t *testing.T, before, after map[string]string) {
	t.Helper()
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("-before +after\n%s", diff)
	}
}

// save saves a plan, and returns its path and content.
func (r trial) save(file string) (path, content string) {
	r.Helper()
	path = filepath.Join(r.dir, "fleet.plan")
	if o := r.run("plan", "-f", file, "--out", path, "--detailed-exitcode"); o.code != 2 {
		r.Fatalf("exit code %d\n%s%s", o.code, o.stdout, o.stderr)
	}
	saved, err := os.ReadFile(path)
	r.must(err)
	return path, string(saved)
}

// TestSavedPlan: it does exactly what it says, once, where it was made for.
func TestSavedPlan(t *testing.T) {
	r := newTrial(t)
	file := r.file("", oneSandbox)
	path, content := r.save(file)
	rewrite := func(old, new string) {
		t.Helper()
		if !strings.Contains(content, old) {
			t.Fatalf("the plan has no %s:\n%s", old, content)
		}
		r.must(os.WriteFile(path, []byte(strings.Replace(content, old, new, 1)), 0o600))
	}

	r.unchanged(func() {
		cluster := content[strings.Index(content, `"cluster": "`):]
		cluster, _, _ = strings.Cut(cluster, ",\n")
		rewrite(cluster, `"cluster": "another"`)
		r.refused(r.run("apply", path), failure.PlanStale, "was made for another cluster", "--context")
		for what, damage := range map[string][2]string{
			"the end is missing":     {content[len(content)/2:], ""},
			"an unknown kind":        {`"kind": "Pod"`, `"kind": "Pot"`},
			"an unknown action":      {`"action": "create"`, `"action": "erase"`},
			"an action that lacks":   {`"action": "create"`, `"action": "update"`},
			"another object's name":  {`"name": "agentpane-`, `"name": "agentpain-`},
			"another format version": {`"formatVersion": "1"`, `"formatVersion": "9"`},
		} {
			rewrite(damage[0], damage[1])
			o := r.run("apply", path)
			r.refused(o, "", path+": it is ")
			if o.stdout != "" {
				t.Errorf("%s: it began:\n%s", what, o.stdout)
			}
		}
	})

	rewrite(content, content)
	r.done(r.run("apply", path))
	r.noChanges(file)
	r.unchanged(func() {
		r.refused(r.run("apply", path), failure.PlanStale, "pod "+r.pod("a").Name+" (sandbox a) was made", "plan --out")
	})
}

// TestSavedPlanIsAppliedAsItsFile: it goes by what the file says of limits, which
// the probe keeps to, and of clusters that enforce nothing.
func TestSavedPlanIsAppliedAsItsFile(t *testing.T) {
	r := newTrial(t)
	r.notEnforced()
	ordinary := func(egress string) (file string) { // with the default limits, and a template that keeps to them
		file = r.file("limits: {}\negress: "+egress+"\n", oneSandbox)
		content, err := os.ReadFile(file)
		r.must(err)
		kept := strings.Replace(string(content), `{cpu: "1", memory: 32Mi, requests: {cpu: 10m, memory: 16Mi}}`, "{cpu: 200m, memory: 512Mi}", 1)
		r.must(os.WriteFile(file, []byte(kept), 0o600))
		return file
	}
	path, _ := r.save(ordinary("{allow: []}"))
	r.refused(r.run("apply", path), failure.NetworkIsolationUnsupported, "does not enforce")

	file := ordinary("{allow: [], unenforced: allow}")
	path, _ = r.save(file)
	r.done(r.run("apply", path))
	r.noChanges(file)
}

// TestRenamedFleet: whoever renames a fleet is told that the old one stays.
func TestRenamedFleet(t *testing.T) {
	r := newTrial(t)
	first := r.done(r.run("apply", "--yes", "-f", r.file("", oneSandbox)))
	content, err := os.ReadFile(r.file("", oneSandbox))
	r.must(err)
	renamed := filepath.Join(r.dir, "renamed.yaml")
	r.must(os.WriteFile(renamed, []byte(strings.Replace(string(content), "name: trial", "name: renamed", 1)), 0o600))
	const told = "  = fleet trial stays: it is another fleet in namespace "
	if planned := r.done(r.run("plan", "-f", renamed)); strings.Contains(first.stdout, " stays: ") || !strings.Contains(planned.stdout, told) {
		t.Errorf("the plans are\n%s\n%s", first.stdout, planned.stdout)
	}
	r.done(r.run("apply", "--yes", "-f", renamed))
	if planned := r.done(r.run("plan", "-f", renamed)); strings.Contains(planned.stdout, told) {
		t.Errorf("it is told of again:\n%s", planned.stdout)
	}
	r.noChanges(r.file("", oneSandbox))
}

// TestPoolThatIsRefused: a pool whose pods the server does not take is known to
// the plan, and nothing is half done.
func TestPoolThatIsRefused(t *testing.T) {
	r := newTrial(t)
	pooled := func(pod string) (file string) {
		file = r.file("pools: {p: {template: t, min: 1, max: 3, autoscale: false}}\n", oneSandbox)
		content, err := os.ReadFile(file)
		r.must(err)
		patched := strings.Replace(string(content), "workspace: {emptyDir: 10Mi}\n", "workspace: {emptyDir: 10Mi}\n    pod: "+pod+"\n", 1)
		r.must(os.WriteFile(file, []byte(strings.Replace(patched, "a: {template: t}", "a: {template: t, pod: {nodeSelector: null}}", 1)), 0o600))
		return file
	}
	r.done(r.run("apply", "--yes", "-f", pooled("{}")))
	r.unchanged(func() {
		file := pooled(`{nodeSelector: {x: "a b"}}`)
		planned := r.run("plan", "-f", file)
		r.refused(planned, failure.Invalid, "spec.nodeSelector", "1 change cannot be made as planned")
		if want := "pool p: 0 → 1 warm (1 to make)\n"; !strings.Contains(planned.stdout, want) || !strings.Contains(planned.stdout, "! cannot be done: K8S_INVALID") {
			t.Errorf("the plan is\n%s", planned.stdout)
		}
		r.refused(r.run("apply", "--yes", "-f", file), failure.Invalid, "1 change cannot be made as planned; nothing of fleet trial was changed")
	})
	r.noChanges(pooled("{}"))
}

// notEnforced has a cluster that enforces policies look like one that does not:
// what the probe's policy forbids, another one allows.
func (r trial) notEnforced() {
	r.Helper()
	_, err := r.cluster.Client.NetworkingV1().NetworkPolicies(r.namespace).Create(r.Context(), &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "open"},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{render.ComponentLabel: render.ProbeComponent}},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}, Egress: []networkingv1.NetworkPolicyEgressRule{{}},
		},
	}, metav1.CreateOptions{})
	r.must(err)
}

// TestChangeOfOthersWhilePlanning: what somebody does between the look at an
// object and the dry run of it is no change of the plan's.
func TestChangeOfOthersWhilePlanning(t *testing.T) {
	r := newTrial(t)
	file := r.file("", oneSandbox)
	r.done(r.run("apply", "--yes", "-f", file))
	r.file("", "  a: {template: t, labels: {ours: x}}\n")
	var once sync.Once
	direct := r
	r.kubeconfig = r.throughProxy(func(request *http.Request) bool {
		if request.Method == http.MethodPatch {
			once.Do(func() { direct.editPod(direct.pod("a"), "kubectl-edit", `{"metadata": {"labels": {"theirs": "x"}}}`) })
		}
		return true
	})
	path, content := r.save(file)
	if !strings.Contains(content, "labels.ours") || strings.Contains(content, "theirs") {
		t.Errorf("the plan is\n%s", content)
	}
	r.done(r.run("apply", "--yes", path))
}

// TestSavedPlanThatIsStale names what has changed since.
func TestSavedPlanThatIsStale(t *testing.T) {
	r := newTrial(t)
	file := r.file("", "  a: {template: t}\n  b: {template: t}\n")
	r.done(r.run("apply", "--yes", "-f", file))
	r.file("", "  a: {template: t, labels: {x: y}}\n")
	path, _ := r.save(file)
	a, b := r.pod("a").Name, r.pod("b").Name
	r.editPod(r.pod("a"), "kubectl-edit", `{"metadata": {"labels": {"theirs": "1"}}}`)
	r.unchanged(func() {
		r.refused(r.run("apply", path), failure.PlanStale, "pod "+a+" (sandbox a) has changed")
	})
	r.must(r.cluster.Client.CoreV1().Pods(r.namespace).Delete(t.Context(), b, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}))
	r.unchanged(func() {
		r.refused(r.run("apply", path), failure.PlanStale, "pod "+a+" (sandbox a) has changed", "pod "+b+" (sandbox b) has gone")
	})
}

// volumes makes a storage class and volumes of 1Gi, for two claims. They show
// a folder that every node has, and nothing is written to it.
func (r trial) volumes() (class string) {
	r.Helper()
	client, ctx := r.cluster.Client, r.Context()
	class = r.namespace
	binding := storagev1.VolumeBindingImmediate
	classes := []string{class, class + "-other"}
	r.Cleanup(func() {
		ctx := context.WithoutCancel(ctx)
		for _, name := range classes {
			r.must(ignoreNotFound(client.CoreV1().PersistentVolumes().Delete(ctx, name, metav1.DeleteOptions{})))
			r.must(ignoreNotFound(client.StorageV1().StorageClasses().Delete(ctx, name, metav1.DeleteOptions{})))
		}
	})
	for _, name := range classes {
		_, err := client.StorageV1().StorageClasses().Create(ctx, &storagev1.StorageClass{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: "kubernetes.io/no-provisioner", VolumeBindingMode: &binding,
		}, metav1.CreateOptions{})
		r.must(err)
		_, err = client.CoreV1().PersistentVolumes().Create(ctx, &corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: corev1.PersistentVolumeSpec{
				StorageClassName: name, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Capacity:                      corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
				PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
				PersistentVolumeSource:        corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/tmp"}},
			},
		}, metav1.CreateOptions{})
		r.must(err)
	}
	return class
}

// TestWorkspaceThatCannotBeChanged: data is never lost without a word.
func TestWorkspaceThatCannotBeChanged(t *testing.T) {
	r := newTrial(t)
	class := r.volumes()
	sandbox := func(size, class string) string {
		return "  a: {template: t, workspace: {size: " + size + ", storageClass: " + class + "}}\n  b: {template: t}\n"
	}
	file := r.file("", sandbox("1Gi", class))
	r.done(r.run("apply", "--yes", "-f", file))
	r.noChanges(file)
	before, pod, other := r.state(), r.pod("a"), r.pod("b")
	for name, sandboxes := range map[string]string{
		"a smaller size":        sandbox("512Mi", class),
		"another storage class": sandbox("1Gi", class+"-other"),
	} {
		r.file("", sandboxes)
		r.unchanged(func() {
			for _, args := range [][]string{{"plan"}, {"apply", "--yes"}, {"apply", "--yes", "--force-conflicts", "--adopt", "--delete-retained-workspaces"}} {
				o := r.run(append(args, "-f", file)...)
				r.refused(o, failure.Immutable, "persistentvolumeclaim workspace-a-", "all data in the workspace is lost", "--replace-workspaces")
				if t.Failed() {
					t.Fatalf("%s: %s", name, o.stdout)
				}
			}
		})
	}
	// A size that this storage cannot grow to is refused, and nothing is replaced for it.
	r.file("", sandbox("2Gi", class))
	r.unchanged(func() {
		o := r.run("apply", "--yes", "-f", file, "--replace-workspaces")
		r.refused(o, failure.AdmissionRefused, "persistentvolumeclaim workspace-a-", "resize")
	})

	r.file("", sandbox("1Gi", class+"-other"))
	o := r.run("plan", "-f", file, "--replace-workspaces", "--detailed-exitcode")
	for _, want := range []string{"must be replaced: ", "all data in the workspace is lost", "pod " + pod.Name + " (sandbox a) must be replaced", "2 to replace"} {
		if o.code != 2 || !strings.Contains(o.stdout, want) {
			t.Errorf("exit code %d, want %q in\n%s%s", o.code, want, o.stdout, o.stderr)
		}
	}
	log := r.dir + "/audit.log"
	r.done(r.run("apply", "--yes", "-f", file, "--replace-workspaces", "--audit-log", log))
	r.noChanges(file)
	var deleted []audit.Event
	for _, record := range auditRecords(t, log) {
		if strings.HasSuffix(string(record.Event), "deleted") {
			deleted = append(deleted, record.Event)
		}
	}
	if diff := cmp.Diff([]audit.Event{audit.PodDeleted, audit.PVCDeleted}, deleted); diff != "" {
		t.Errorf("the audit log (-want +got):\n%s", diff)
	}
	if r.pod("a").UID == pod.UID || r.pod("b").UID != other.UID {
		t.Error("want the pod of a replaced, and that of b left alone")
	}
	expectSame(t, without(without(before, "Pod"), "PersistentVolumeClaim"), without(without(r.state(), "Pod"), "PersistentVolumeClaim"))

	// A sandbox that is stopped by the same file does not hold its workspace back.
	r.file("", strings.Replace(sandbox("1Gi", class), "t,", "t, state: stopped,", 1))
	r.done(r.run("apply", "--yes", "-f", file, "--replace-workspaces"))
	r.noPod("a")
	r.noChanges(file)
}
