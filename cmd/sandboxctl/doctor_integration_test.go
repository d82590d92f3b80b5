//go:build integration

package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/agentpane/sandboxctl/reconcile/doctor"
	"github.com/agentpane/sandboxctl/reconcile/enforcement"
	"github.com/agentpane/sandboxctl/render"
)

// examined is what doctor finds, as JSON; each finding that is not good must say
// what to do.
func (r trial) examined(file string, code int) doctorInfo {
	r.Helper()
	o := r.run("doctor", "-f", file, "-o", "json")
	var info doctorInfo
	if err := json.Unmarshal([]byte(o.stdout), &info); err != nil || o.code != code || info.OK != (code == 0) {
		r.Fatalf("exit code %d, want %d: %v\n%s%s", o.code, code, err, o.stdout, o.stderr)
	}
	for _, finding := range info.Findings {
		if (finding.Remedy == "") != (finding.Level == doctor.OK) {
			r.Errorf("a finding is %s, and its remedy is %q: %s", finding.Level, finding.Remedy, finding.Message)
		}
	}
	return info
}

// has expects a finding of that check and level, with those words.
func (r trial) has(info doctorInfo, check string, level doctor.Level, words string) doctor.Finding {
	r.Helper()
	for _, finding := range info.Findings {
		if finding.Check == check && finding.Level == level && strings.Contains(finding.Message, words) {
			return finding
		}
	}
	r.Errorf("doctor finds no %s of %s with %q: %+v", level, check, words, info.Findings)
	return doctor.Finding{}
}

// TestDoctorOfAHealthyFleet has nothing to say against it, and removes what it
// has made to find that out.
func TestDoctorOfAHealthyFleet(t *testing.T) {
	r := newTrial(t)
	file := r.file("", oneSandbox)
	r.done(r.run("apply", "--yes", "-f", file))
	info := r.examined(file, 0)
	for check, words := range map[string]string{
		"server": "the server is v1.", "clock": "agrees", "permissions": "rights that the file needs are there", "namespace": "exists", "pod-security": "refuses a privileged pod",
		"image": "has tmux 3",
	} {
		r.has(info, check, doctor.OK, words)
	}
	enforced := doctor.Finding{}
	for _, finding := range info.Findings {
		if finding.Check == "egress" {
			enforced = finding
		}
	}
	if enforced.Enforcement == nil || enforced.Enforcement.Verdict != enforcement.Enforced {
		t.Errorf("the verdict is %+v", enforced)
	}
	r.eventually("the probe is gone", func(ctx context.Context) bool {
		pods, err := r.cluster.Client.CoreV1().Pods(r.namespace).List(ctx, metav1.ListOptions{LabelSelector: render.ComponentLabel + "=" + render.ProbeComponent})
		return err == nil && len(pods.Items) == 0
	})
}

// TestDoctorFinds what would go wrong, each with what to do about it.
func TestDoctorFinds(t *testing.T) {
	r := newTrial(t)
	const bare = "  bare: {template: t, env: {PATH: /none}, pod: {containers: [{name: sandbox, command: [/bin/sleep, infinity]}]}"
	r.done(r.run("apply", "--yes", "-f", r.file("", bare+"}\n")))
	_, err := r.cluster.Client.CoreV1().ResourceQuotas(r.namespace).Create(t.Context(), &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "small"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourcePods: resource.MustParse("9")}},
	}, metav1.CreateOptions{})
	r.must(err)
	r.notEnforced()
	r.eventually("the quota has counted", func(ctx context.Context) bool {
		quota, err := r.cluster.Client.CoreV1().ResourceQuotas(r.namespace).Get(ctx, "small", metav1.GetOptions{})
		return err == nil && len(quota.Status.Used) == 2
	})

	file := r.file("pools: {p: {template: t, min: 2}}\negress: {allow: []}\n", bare+`, sessions: {agent: {}}}
  big: {template: t, resources: {cpu: 2, requests: {cpu: 2}}, runtimeClass: no-runtime, workspace: {size: 10Mi, storageClass: no-storage}}
`)
	r.now = func() time.Time { return time.Now().Add(3 * time.Minute) }
	info := r.examined(file, 1)
	r.has(info, "clock", doctor.Warning, "ahead of the server's")
	for check, words := range map[string]string{
		"runtime-class": "there is no class no-runtime",
		"storage-class": "there is no class no-storage",
		"quota":         "of cpu left, and 5 pods that are to come need ",
		"image":         "has no tmux",
		"egress":        "does not enforce NetworkPolicy",
	} {
		r.has(info, check, doctor.Error, words)
	}
	r.has(info, "permissions", doctor.OK, "")
	if o := r.run("doctor", "-f", file); o.code != 1 || !strings.Contains(o.stdout, "→ Name another: kubectl get storageclasses") || !strings.Contains(o.stderr, "5 things need to be repaired") {
		t.Errorf("exit code %d\n%s%s", o.code, o.stdout, o.stderr)
	}
}

// asAccount returns a kubeconfig of a service account.
func (r trial) asAccount(name string) (kubeconfig string) {
	r.Helper()
	token, err := r.cluster.Client.CoreV1().ServiceAccounts(r.namespace).CreateToken(r.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	r.must(err)
	return r.writeKubeconfig(r.cluster.Config.Host, token.Status.Token, r.authority())
}

// TestDoctorUnderTheProjectsOwnRoles: what they leave to an administrator is
// worth a warning, once it is there.
func TestDoctorUnderTheProjectsOwnRoles(t *testing.T) {
	r := newTrial(t)
	file := r.file("pools: {p: {template: t, min: 1, max: 2}}\n", oneSandbox)
	r.done(r.run("apply", "--yes", "-f", file))
	r.kubeconfig = r.asAccount("agentpane-sandbox-controller-trial")
	info := r.examined(file, 0)
	r.has(info, "permissions", doctor.Warning, "no permission to patch namespaces in the whole cluster")
	r.has(info, "permissions", doctor.Warning, "no permission to create clusterroles.rbac.authorization.k8s.io in the whole cluster")
	for _, finding := range info.Findings {
		if finding.Check == "permissions" && strings.Contains(finding.Message, "in namespace ") {
			t.Errorf("a right that the role has: %s", finding.Message)
		}
	}
}

// TestDoctorWithoutRights names each right that lacks, and what cannot be known
// without it; it does not break off.
func TestDoctorWithoutRights(t *testing.T) {
	r := newTrial(t)
	file := r.file("pools: {p: {template: t}}\n", "  a: {template: t, egress: {allow: [{host: a.example}]}}\n")
	accounts := r.cluster.Client.CoreV1().ServiceAccounts(r.namespace)
	_, err := accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "nobody"}}, metav1.CreateOptions{})
	r.must(err)
	r.kubeconfig = r.asAccount("nobody")
	info := r.examined(file, 1)
	r.has(info, "permissions", doctor.Error, "no permission to create pods in namespace "+r.namespace)
	r.has(info, "permissions", doctor.Error, "no permission to update leases.coordination.k8s.io in namespace "+r.namespace)
	r.has(info, "permissions", doctor.Error, "no permission to create pods/exec in namespace "+r.namespace)
	r.has(info, "permissions", doctor.Error, "no permission to patch clusterroles.rbac.authorization.k8s.io in the whole cluster")
	for _, check := range []string{"namespace", "quota", "egress", "gateway", "image"} {
		r.has(info, check, doctor.Unknown, "")
	}

	r.kubeconfig = r.asUser("patch", "pods")
	info = r.examined(file, 1)
	r.has(info, "permissions", doctor.Error, "no permission to patch pods in namespace "+r.namespace)
}
