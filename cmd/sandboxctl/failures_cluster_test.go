//go:build integration

package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/render"
)

// asUser returns a kubeconfig of a user who may do everything that the program
// does, but for one verb on one resource.
func (r trial) asUser(lackingVerb, lackingResource string) (kubeconfig string) {
	r.Helper()
	verbs := []string{"get", "list", "watch", "create", "patch", "delete", "escalate", "bind"}
	var inNamespace, clusterWide []rbacv1.PolicyRule
	for _, kind := range render.Kinds() {
		rule := rbacv1.PolicyRule{APIGroups: []string{kind.Resource.Group}, Resources: []string{kind.Resource.Resource}}
		for _, verb := range verbs {
			if verb != lackingVerb || kind.Resource.Resource != lackingResource {
				rule.Verbs = append(rule.Verbs, verb)
			}
		}
		if kind.Namespaced {
			inNamespace = append(inNamespace, rule)
		} else {
			clusterWide = append(clusterWide, rule)
		}
	}
	ctx, name := r.Context(), r.namespace+"-user"
	subjects := []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: r.namespace, Name: "user"}}
	meta := metav1.ObjectMeta{Name: name}
	_, err := r.cluster.Client.CoreV1().ServiceAccounts(r.namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "user"}}, metav1.CreateOptions{})
	r.must(err)
	rbac := r.cluster.Client.RbacV1()
	_, err = rbac.Roles(r.namespace).Create(ctx, &rbacv1.Role{ObjectMeta: meta, Rules: inNamespace}, metav1.CreateOptions{})
	r.must(err)
	_, err = rbac.RoleBindings(r.namespace).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: meta, Subjects: subjects, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
	}, metav1.CreateOptions{})
	r.must(err)
	r.Cleanup(func() {
		ctx := context.WithoutCancel(ctx)
		r.must(ignoreNotFound(rbac.ClusterRoleBindings().Delete(ctx, name, metav1.DeleteOptions{})))
		r.must(ignoreNotFound(rbac.ClusterRoles().Delete(ctx, name, metav1.DeleteOptions{})))
	})
	_, err = rbac.ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: meta, Rules: clusterWide}, metav1.CreateOptions{})
	r.must(err)
	_, err = rbac.ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta, Subjects: subjects, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
	}, metav1.CreateOptions{})
	r.must(err)
	token, err := r.cluster.Client.CoreV1().ServiceAccounts(r.namespace).CreateToken(ctx, "user", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	r.must(err)
	return r.writeKubeconfig(r.cluster.Config.Host, token.Status.Token, r.authority())
}

// authority is the certificate that signed the cluster's.
func (r trial) authority() []byte {
	r.Helper()
	root, err := r.cluster.Client.CoreV1().ConfigMaps("kube-system").Get(r.Context(), "kube-root-ca.crt", metav1.GetOptions{})
	r.must(err)
	return []byte(root.Data["ca.crt"])
}

func (r trial) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// editPod changes a pod by a merge patch, as kubectl edit or a controller does.
func (r trial) editPod(pod *corev1.Pod, manager, patch string) {
	r.Helper()
	_, err := r.cluster.Client.CoreV1().Pods(r.namespace).Patch(r.Context(), pod.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: manager})
	r.must(err)
}

// TestNoPermission: the verb and the resource that lack are named, and a plan
// that cannot be made whole changes nothing.
func TestNoPermission(t *testing.T) {
	t.Parallel()
	for name, lacking := range map[string]struct {
		verb, resource string
		code           failure.Code
		where          string // what the message says after the resource
	}{
		"listing pods":          {"list", "pods", failure.NamespaceAccessDenied, " in namespace "},
		"listing policies":      {"list", "networkpolicies", failure.NamespaceAccessDenied, ".networking.k8s.io in namespace "},
		"listing cluster roles": {"list", "clusterroles", failure.PermissionDenied, ".rbac.authorization.k8s.io"},
		"patching pods":         {"patch", "pods", failure.NamespaceAccessDenied, " in namespace "},
		"creating pods":         {"create", "pods", failure.NamespaceAccessDenied, " in namespace "},
		"patching policies":     {"patch", "networkpolicies", failure.NamespaceAccessDenied, ".networking.k8s.io in namespace "},
		"escalating roles":      {"escalate", "roles", failure.PermissionDenied, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTrial(t)
			r.kubeconfig = r.asUser(lacking.verb, lacking.resource)
			file := r.file("", oneSandbox)
			words := []string{"system:serviceaccount:" + r.namespace + ":user may not " + lacking.verb + " " + lacking.resource + lacking.where,
				"kubectl auth can-i " + lacking.verb + " " + lacking.resource}
			if lacking.verb == "escalate" {
				words = []string{"would grant what user system:serviceaccount:" + r.namespace + ":user does not hold", "the verb escalate on roles"}
			}
			r.unchanged(func() {
				r.refused(r.run("plan", "-f", file), lacking.code, words...)
				r.refused(r.run("apply", "--yes", "-f", file), lacking.code, words...)
			})
		})
	}
}

// TestNoPermissionFoundOutLate is a verb that no dry run needs: what fails is
// named, and what it would have replaced is left alone.
func TestNoPermissionFoundOutLate(t *testing.T) {
	r := newTrial(t)
	file := r.file("", oneSandbox)
	r.done(r.run("apply", "--yes", "-f", file))
	before := r.pod("a")
	admin := r.kubeconfig
	r.kubeconfig = r.asUser("delete", "pods")
	r.file("", "  a: {template: t, env: {A: b}}\n")
	o := r.run("apply", "--yes", "-f", file)
	r.refused(o, failure.NamespaceAccessDenied, "may not delete pods in namespace "+r.namespace)
	if !strings.Contains(o.stdout, "not done: replace pod "+before.Name) {
		t.Errorf("what is left is not listed:\n%s", o.stdout)
	}
	if now := r.pod("a"); now.UID != before.UID || now.DeletionTimestamp != nil {
		t.Error("the pod was touched")
	}
	r.kubeconfig = admin // and the lock was released
	r.done(r.run("apply", "--yes", "-f", file))
}

func TestNamespaceThatIsTerminating(t *testing.T) {
	r := newTrial(t)
	file := r.file("", oneSandbox)
	configMaps := r.cluster.Client.CoreV1().ConfigMaps(r.namespace)
	held := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "held", Finalizers: []string{"example.com/held"}}}
	_, err := configMaps.Create(t.Context(), held, metav1.CreateOptions{})
	r.must(err)
	t.Cleanup(func() {
		_, err := configMaps.Patch(context.WithoutCancel(t.Context()), "held", types.MergePatchType, []byte(`{"metadata": {"finalizers": null}}`), metav1.PatchOptions{})
		r.must(err)
	})
	r.must(r.cluster.Client.CoreV1().Namespaces().Delete(t.Context(), r.namespace, metav1.DeleteOptions{}))
	r.unchanged(func() {
		for _, verb := range [][]string{{"plan"}, {"apply", "--yes"}} {
			o := r.run(append(verb, "-f", file)...)
			r.refused(o, failure.NamespaceTerminating, "namespace "+r.namespace+" is being deleted", "kubectl get namespace "+r.namespace)
			if n := strings.Count(o.stderr, "Error: "); n != 1 {
				t.Errorf("it is said %d times:\n%s", n, o.stderr)
			}
		}
	})
}

// TestQuotaExceeded: the fleet's own quota, which comes into force with the
// first apply, and then stands in the way of the second.
func TestQuotaExceeded(t *testing.T) {
	r := newTrial(t)
	const two = "  a: {template: t}\n  b: {template: t}\n"
	file := r.file("quota: {pods: 1}\n", two)
	o := r.run("apply", "--yes", "-f", file)
	r.refused(o, failure.InsufficientResources, "quota sandbox-quota-trial has no room for pod ", "pods 1 requested, 1 of 1 used")
	if strings.Count(o.stdout, "not done: ") != 1 || !strings.Contains(o.stdout, "not done: create pod ") {
		t.Errorf("one pod has room, the other is left:\n%s", o.stdout)
	}
	r.unchanged(func() {
		r.refused(r.run("plan", "-f", file), failure.InsufficientResources, "quota sandbox-quota-trial has no room for pod ")
		r.refused(r.run("apply", "--yes", "-f", file), failure.InsufficientResources, "quota sandbox-quota-trial has no room for pod ", "nothing of fleet trial was changed")
	})

	// A file that raises the quota for the sake of a sandbox is no contradiction.
	r.file("quota: {pods: 2}\n", two)
	r.done(r.run("apply", "--yes", "-f", file))
	r.noChanges(file)

	// A replacement needs room for one pod, not for two.
	r.file("quota: {pods: 2}\n", "  a: {template: t, env: {A: b}}\n  b: {template: t, env: {A: b}}\n")
	r.done(r.run("apply", "--yes", "-f", file))
	r.noChanges(file)
}

// TestLimitsExceeded: the fleet's own limits, raised with what needs it.
func TestLimitsExceeded(t *testing.T) {
	r := newTrial(t)
	small := "limits: {min: {cpu: 10m, memory: 16Mi}, max: {cpu: \"1\", memory: 64Mi}, default: {cpu: 50m, memory: 64Mi}, defaultRequest: {cpu: 10m, memory: 32Mi}}\n"
	large := strings.Replace(small, "max: {cpu: \"1\"", "max: {cpu: \"2\"", 1)
	file := r.file(small, oneSandbox)
	r.done(r.run("apply", "--yes", "-f", file))
	greedy := "  a: {template: t}\n  b: {template: t, resources: {cpu: \"2\", memory: 32Mi, requests: {cpu: 10m}}}\n"
	r.file(small, greedy)
	r.unchanged(func() {
		r.refused(r.run("apply", "--yes", "-f", file), "", "cpu", "2")
	})
	r.file(large, greedy)
	r.done(r.run("apply", "--yes", "-f", file))
	r.noChanges(file)

	// So it is with the pods of a pool. Each time, admission has to learn of the new
	// limits before it lets them in.
	for range 3 {
		r.file(small, oneSandbox)
		r.done(r.run("apply", "--yes", "-f", file))
		r.file(large+"pools: {p: {template: t, min: 1, max: 2}}\n", oneSandbox)
		content, err := os.ReadFile(file)
		r.must(err)
		r.must(os.WriteFile(file, bytes.Replace(content, []byte(`resources: {cpu: "1"`), []byte(`resources: {cpu: "2"`), 1), 0o600))
		r.done(r.run("apply", "--yes", "-f", file))
		r.noChanges(file)
	}
}

// TestPolicyThatRefuses is an admission policy of the cluster.
func TestPolicyThatRefuses(t *testing.T) {
	r := newTrial(t)
	file := r.file("", oneSandbox)
	r.forbidPods("sandboxes are not wanted here")
	o := outcome{}
	r.eventually("the policy is in force", func(context.Context) bool {
		o = r.run("plan", "-f", file)
		return o.code != 0
	})
	words := []string{"policy " + r.namespace + " refuses pod ", "sandboxes are not wanted here"}
	r.refused(o, failure.AdmissionRefused, words...)
	r.unchanged(func() {
		r.refused(r.run("apply", "--yes", "-f", file), failure.AdmissionRefused, append(words, "nothing of fleet trial was changed")...)
	})
}

// newPods are what an admission policy of the trial is about.
func (r trial) newPods() *admissionv1.MatchResources {
	return &admissionv1.MatchResources{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: r.namespace}},
		ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
			Operations: []admissionv1.OperationType{admissionv1.Create},
			Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
		}}},
	}
}

// forbidPods makes an admission policy for the trial's namespace alone.
func (r trial) forbidPods(message string) {
	r.Helper()
	admission, ctx := r.cluster.Client.AdmissionregistrationV1(), r.Context()
	meta := metav1.ObjectMeta{Name: r.namespace}
	r.Cleanup(func() {
		ctx := context.WithoutCancel(ctx)
		r.must(ignoreNotFound(admission.ValidatingAdmissionPolicyBindings().Delete(ctx, r.namespace, metav1.DeleteOptions{})))
		r.must(ignoreNotFound(admission.ValidatingAdmissionPolicies().Delete(ctx, r.namespace, metav1.DeleteOptions{})))
	})
	_, err := admission.ValidatingAdmissionPolicies().Create(ctx, &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: meta,
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: r.newPods(),
			Validations:      []admissionv1.Validation{{Expression: "false", Message: message}},
		},
	}, metav1.CreateOptions{})
	r.must(err)
	_, err = admission.ValidatingAdmissionPolicyBindings().Create(ctx, &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: meta,
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: r.namespace, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		},
	}, metav1.CreateOptions{})
	r.must(err)
}

// TestObjectThatIsThere: what is there and not the fleet's is taken over on
// request, and what another fleet has not even then.
func TestObjectThatIsThere(t *testing.T) {
	r := newTrial(t)
	file := r.file("", oneSandbox)
	accounts := r.cluster.Client.CoreV1().ServiceAccounts(r.namespace)
	const name = "agentpane-sandbox-controller-trial"
	there := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"theirs": "1"}}}
	_, err := accounts.Create(t.Context(), there, metav1.CreateOptions{})
	r.must(err)
	r.unchanged(func() {
		words := []string{"serviceaccount " + name + " is there and was not made by sandboxctl", "--adopt takes it over"}
		r.refused(r.run("plan", "-f", file), failure.AdoptionRefused, words...)
		r.refused(r.run("apply", "--yes", "-f", file), failure.AdoptionRefused, append(words, "nothing of fleet trial was changed")...)
	})
	o := r.done(r.run("apply", "--yes", "--adopt", "-f", file))
	if !strings.Contains(o.stderr, "serviceaccount "+name+" adopted") {
		t.Errorf("it does not say that it was adopted:\n%s", o.stderr)
	}
	r.noChanges(file)
	adopted, err := accounts.Get(t.Context(), name, metav1.GetOptions{})
	r.must(err)
	if adopted.Labels["theirs"] != "1" || adopted.Labels[render.PartOfLabel] == "" {
		t.Errorf("its labels are %v", adopted.Labels)
	}
}

func TestObjectOfAnotherFleet(t *testing.T) {
	r := newTrial(t)
	file := r.file("", oneSandbox)
	const name = "agentpane-sandbox-controller-trial"
	for _, test := range []struct {
		labels map[string]string
		owner  string
	}{
		{map[string]string{render.PartOfLabel: "applyset-other", render.FleetLabel: "team-b"}, "another fleet, team-b"},
		{map[string]string{render.PartOfLabel: "applyset-other"}, "another tool (" + render.PartOfLabel + "=applyset-other)"},
	} {
		accounts := r.cluster.Client.CoreV1().ServiceAccounts(r.namespace)
		_, err := accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: test.labels}}, metav1.CreateOptions{})
		r.must(err)
		r.unchanged(func() {
			for _, args := range [][]string{{"plan", "--adopt"}, {"apply", "--yes"}, {"apply", "--yes", "--adopt", "--force-conflicts"}} {
				r.refused(r.run(append(args, "-f", file)...), failure.AdoptionRefused, "serviceaccount "+name+" belongs to "+test.owner)
			}
		})
		r.must(accounts.Delete(t.Context(), name, metav1.DeleteOptions{}))
	}
}

// TestConflictWithAController: a field that a program took is named with its
// manager, and taken back on request.
func TestConflictWithAController(t *testing.T) {
	r := newTrial(t)
	file := r.file("", "  a: {template: t, labels: {x: y}}\n")
	r.done(r.run("apply", "--yes", "-f", file))
	r.editPod(r.pod("a"), "some-controller", `{"metadata": {"labels": {"x": "z"}}}`)
	r.unchanged(func() {
		words := []string{"fields of pod ", ".metadata.labels.x", "some-controller", "--force-conflicts"}
		r.refused(r.run("plan", "-f", file), failure.Conflict, words...)
		r.refused(r.run("apply", "--yes", "-f", file), failure.Conflict, append(words, "nothing of fleet trial was changed")...)
	})
	r.done(r.run("apply", "--yes", "--force-conflicts", "-f", file))
	if got := r.pod("a").Labels["x"]; got != "y" {
		t.Errorf("the label is %q", got)
	}
	r.noChanges(file)
}

// TestProfileThatIsLowered: the namespace is the fleet's own, and a sandbox
// that its old profile forbids comes with the new one.
func TestProfileThatIsLowered(t *testing.T) {
	r := newTrial(t)
	r.namespace += "-own"
	file := r.file("quota: {pods: 2}\n", oneSandbox)
	t.Cleanup(func() {
		r.must(ignoreNotFound(r.cluster.Client.CoreV1().Namespaces().Delete(context.WithoutCancel(t.Context()), r.namespace, metav1.DeleteOptions{})))
	})
	o := r.run("plan", "-f", file, "--detailed-exitcode")
	if o.code != 2 || !strings.Contains(o.stdout, "not validated by the server: its namespace does not exist yet") {
		t.Errorf("exit code %d\n%s%s", o.code, o.stdout, o.stderr)
	}
	r.done(r.run("apply", "--yes", "-f", file))
	r.noChanges(file)

	const lax = "  b: {template: t, pod: {containers: [{name: sandbox, securityContext: {allowPrivilegeEscalation: true}}]}}\n"
	r.file("quota: {pods: 2}\n", oneSandbox+lax)
	r.unchanged(func() { r.refused(r.run("apply", "--yes", "-f", file), "", "allowPrivilegeEscalation") })
	r.file("quota: {pods: 2}\npodSecurity: baseline\n", oneSandbox+lax)
	o = r.run("plan", "-f", file, "--detailed-exitcode")
	if o.code != 2 || !strings.Contains(o.stdout, "by a Namespace that changes first") {
		t.Errorf("exit code %d\n%s%s", o.code, o.stdout, o.stderr)
	}
	r.done(r.run("apply", "--yes", "-f", file))
	r.noChanges(file)

	o = r.done(r.run("destroy", "--yes", "-f", file))
	_, err := r.cluster.Client.CoreV1().Namespaces().Get(t.Context(), r.namespace, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("the namespace is still there: %v\n%s%s", err, o.stdout, o.stderr)
	}
	if left := r.state(); len(left) > 0 {
		t.Errorf("destroy left %v", left)
	}
}
