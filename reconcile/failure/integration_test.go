//go:build integration

package failure_test

import (
	"context"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/agentpane/sandboxctl/reconcile/clustertest"
	"github.com/agentpane/sandboxctl/reconcile/failure"
)

// The answers in testdata are those of one version of the API server; these
// tests hold the patterns against the one at hand.

func TestRealRefusalsOfPods(t *testing.T) {
	cluster := clustertest.Connect(t)
	limits := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")}
	for name, test := range map[string]struct {
		labels map[string]string
		rule   func(t *testing.T, namespace string) error
		want   []string
	}{
		"Pod Security": {
			labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
			want: []string{
				"K8S_POD_SECURITY_VIOLATION: pod x in namespace NAMESPACE violates the Pod Security profile restricted: allowPrivilegeEscalation != false (",
				"; runAsNonRoot != true (",
			},
		},
		"quota": {
			rule: func(t *testing.T, namespace string) error {
				hard := corev1.ResourceList{"limits.cpu": resource.MustParse("1")}
				_, err := cluster.Client.CoreV1().ResourceQuotas(namespace).Create(t.Context(),
					&corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "small"}, Spec: corev1.ResourceQuotaSpec{Hard: hard}}, metav1.CreateOptions{})
				return err
			},
			want: []string{"K8S_INSUFFICIENT_RESOURCES: quota small has no room for pod x in namespace NAMESPACE: limits.cpu 2 requested, 0 of 1 used"},
		},
		"limits": {
			rule: func(t *testing.T, namespace string) error {
				item := corev1.LimitRangeItem{Type: corev1.LimitTypeContainer, Max: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}}
				_, err := cluster.Client.CoreV1().LimitRanges(namespace).Create(t.Context(),
					&corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Name: "small"}, Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{item}}}, metav1.CreateOptions{})
				return err
			},
			want: []string{"K8S_ADMISSION_REFUSED: the cluster refuses pod x in namespace NAMESPACE: maximum cpu usage per Container is 1, but limit is 2"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			namespace := cluster.Namespace(t, test.labels)
			if test.rule != nil {
				if err := test.rule(t, namespace); err != nil {
					t.Fatal(err)
				}
			}
			object := failure.Object{Kind: "Pod", Namespace: namespace, Name: "x"}
			clustertest.Eventually(t, "the rule is in force", func(ctx context.Context) bool {
				_, err := cluster.Client.CoreV1().Pods(namespace).Create(ctx, &corev1.Pod{
					ObjectMeta: metav1.ObjectMeta{Name: "x"},
					Spec: corev1.PodSpec{Containers: []corev1.Container{{
						Name: "c", Image: clustertest.SandboxImage, Resources: corev1.ResourceRequirements{Limits: limits},
					}}},
				}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
				if err == nil || strings.Contains(err.Error(), "status unknown for quota") { // as long as it was not counted yet
					return false
				}
				message := failure.From(err, object).Error()
				for _, want := range test.want {
					if want = strings.ReplaceAll(want, "NAMESPACE", namespace); !strings.Contains(message, want) {
						t.Fatalf("got %s, want %s", message, want)
					}
				}
				return true
			})
		})
	}
}

func TestRealRefusalsOfConfigMaps(t *testing.T) {
	cluster := clustertest.Connect(t)
	namespace := cluster.Namespace(t, nil)
	configMaps := cluster.Client.CoreV1().ConfigMaps(namespace)
	object := failure.Object{Kind: "ConfigMap", Namespace: namespace, Name: "x"}
	apply := func(manager, body string) error {
		_, err := configMaps.Patch(t.Context(), "x", types.ApplyPatchType,
			[]byte(`{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, `+body+`}`), metav1.PatchOptions{FieldManager: manager})
		return failure.From(err, object)
	}
	for _, step := range []struct{ manager, body, want string }{
		{"one", `"data": {"a": "1"}`, ""},
		{"two", `"data": {"a": "hunter2"}`, `K8S_CONFLICT: fields of configmap x in namespace NAMESPACE belong to another manager: .data.a ("one")`},
		{"one", `"data": {"a": "1"}, "odd": "hunter2"`, `K8S_INVALID: configmap x in namespace NAMESPACE is not valid: .odd: field not declared in schema`},
		{"one", `"data": {"a": 12345678}`, `K8S_INVALID: configmap x in namespace NAMESPACE is not valid: .data.a: expected string`},
		{"one", `"data": {"a": "1"}, "immutable": true`, ""},
		{"one", `"data": {"a": "hunter2"}, "immutable": true`, "K8S_IMMUTABLE: configmap x in namespace NAMESPACE cannot be changed like that: data: Forbidden: field is immutable when `immutable` is set"},
	} {
		got := ""
		if err := apply(step.manager, step.body); err != nil {
			got = err.Error()
		}
		if want := strings.ReplaceAll(step.want, "NAMESPACE", namespace); got != want {
			t.Errorf("%s applies %s: got %q, want %q", step.manager, step.body, got, want)
		}
	}
}

func TestRealNamespaceIsTerminating(t *testing.T) {
	cluster := clustertest.Connect(t)
	ctx := t.Context()
	namespaces := cluster.Client.CoreV1().Namespaces()
	namespace, err := namespaces.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "sandboxctl-test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	configMaps := cluster.Client.CoreV1().ConfigMaps(namespace.Name)
	held := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "held", Finalizers: []string{"example.com/held"}}}
	if _, err := configMaps.Create(ctx, held, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, err := configMaps.Patch(context.WithoutCancel(ctx), "held", types.MergePatchType, []byte(`{"metadata": {"finalizers": null}}`), metav1.PatchOptions{})
		if err != nil {
			t.Errorf("letting namespace %s go: %v", namespace.Name, err)
		}
	})
	if err := namespaces.Delete(ctx, namespace.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err = configMaps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, metav1.CreateOptions{})
	err = failure.From(err, failure.Object{Kind: "ConfigMap", Namespace: namespace.Name, Name: "x"})
	want := "K8S_NAMESPACE_TERMINATING: configmap x in namespace " + namespace.Name + " cannot be made: the namespace " + namespace.Name + " is being terminated"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestRealWebhookDoesNotAnswer(t *testing.T) {
	cluster := clustertest.Connect(t)
	namespace := cluster.Namespace(t, nil)
	nowhere, none := "https://127.0.0.1:1/", admissionv1.SideEffectClassNone
	webhooks := cluster.Client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	configuration, err := webhooks.Create(t.Context(), &admissionv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "sandboxctl-test-"},
		Webhooks: []admissionv1.ValidatingWebhook{{
			Name:                    "nowhere.example.com",
			ClientConfig:            admissionv1.WebhookClientConfig{URL: &nowhere},
			NamespaceSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}},
			SideEffects:             &none,
			AdmissionReviewVersions: []string{"v1"},
			Rules: []admissionv1.RuleWithOperations{{
				Operations: []admissionv1.OperationType{admissionv1.Create},
				Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
			}},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := webhooks.Delete(context.WithoutCancel(t.Context()), configuration.Name, metav1.DeleteOptions{}); err != nil {
			t.Errorf("removing webhook %s: %v", configuration.Name, err)
		}
	})
	object := failure.Object{Kind: "ConfigMap", Namespace: namespace, Name: "x"}
	clustertest.Eventually(t, "the webhook is asked", func(ctx context.Context) bool {
		_, err := cluster.Client.CoreV1().ConfigMaps(namespace).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x"}},
			metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil {
			return false
		}
		want := "K8S_ADMISSION_REFUSED: webhook nowhere.example.com, which must be asked about " + object.String() + ", does not answer: "
		if message := failure.From(err, object).Error(); !strings.HasPrefix(message, want) {
			t.Fatalf("got %s, want %s", message, want)
		}
		return true
	})
}
