//go:build integration && internet

package egress_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilexec "k8s.io/client-go/util/exec"

	"github.com/agentpane/sandboxctl/reconcile"
	"github.com/agentpane/sandboxctl/reconcile/clustertest"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// field is a fleet with a gateway on the real cluster, and a pod beside it that
// no policy covers: what that one reaches, and a sandbox does not, is blocked.
type field struct {
	*testing.T
	cluster    clustertest.Cluster
	internet   clustertest.Internet
	reconciler *reconcile.Reconciler
	namespace  string
	free       *corev1.Pod
	authority  string
}

func newField(t *testing.T) *field {
	t.Parallel()
	cluster := clustertest.Connect(t)
	f := &field{
		T: t, cluster: cluster, internet: clustertest.TestInternet(t),
		namespace: cluster.Namespace(t, map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}),
	}
	var err error
	if f.reconciler, err = reconcile.New(cluster.Config, time.Now, "the test"); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(f.internet.CA)
	if err != nil {
		t.Fatal(err)
	}
	f.authority = string(content)
	return f
}

const fileHead = `
apiVersion: agentpane.io/v1alpha1
kind: SandboxFleet
name: f
namespace: %s
limits: {min: {cpu: 10m, memory: 16Mi}}
templates:
  t:
    image: %s
    resources: {cpu: "1", memory: 512Mi, requests: {cpu: 10m, memory: 32Mi}}
    workspace: {emptyDir: 50Mi}
sandboxes:
%s`

// apply applies the sandboxes, waits until they are ready, and sees to it that
// a plan then says that nothing changes.
func (f *field) apply(sandboxes string) plan.Plan {
	f.Helper()
	plan := func() (*schema.Fleet, plan.Plan) {
		fleets, found := schema.Load([]string{"-"}, strings.NewReader(fmt.Sprintf(fileHead, f.namespace, clustertest.SandboxImage, sandboxes)))
		if found.HasErrors() {
			f.Fatal(found)
		}
		objects, found := render.Objects(fleets[0])
		if found.HasErrors() {
			f.Fatal(found)
		}
		p, err := f.reconciler.Plan(f.Context(), fleets[0], objects, reconcile.Options{})
		if err != nil {
			f.Fatal(err)
		}
		for _, change := range p.Blocked() {
			f.Fatalf("%s is blocked: %v", change.Ref, change.Problem)
		}
		return fleets[0], p
	}
	fleet, p := plan()
	result, err := f.reconciler.Apply(f.Context(), fleet, p, func(reconcile.Event) {})
	if err == nil {
		err = f.reconciler.WaitReady(f.Context(), fleet, result.Done, 2*time.Minute, func(event reconcile.Event) {
			f.Log(event.Change.Ref, event.Phase, event.Message, event.Err)
		})
	}
	if err != nil {
		f.Fatal(err)
	}
	if _, after := plan(); !after.Empty() {
		f.Errorf("a plan right after the apply has changes: %v", after.Changes)
	}
	return p
}

// runFree runs the pod that no policy covers.
func (f *field) runFree(labels map[string]string) *corev1.Pod {
	f.Helper()
	return f.cluster.Run(f.T, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, GenerateName: "free-", Labels: labels},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken: new(false),
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: new(true), RunAsUser: new(int64(1000)),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: "sandbox", Image: clustertest.SandboxImage,
				Resources: corev1.ResourceRequirements{
					Requests: corev1.ResourceList{corev1.ResourceCPU: resourceOf("10m"), corev1.ResourceMemory: resourceOf("32Mi")},
					Limits:   corev1.ResourceList{corev1.ResourceCPU: resourceOf("1"), corev1.ResourceMemory: resourceOf("128Mi")},
				},
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		},
	})
}

func (f *field) pod(name string) *corev1.Pod {
	f.Helper()
	list, err := f.cluster.Client.CoreV1().Pods(f.namespace).List(f.Context(), metav1.ListOptions{LabelSelector: render.SandboxIDLabel + "=" + name})
	if err != nil || len(list.Items) != 1 {
		f.Fatalf("sandbox %s has %d pods, %v", name, len(list.Items), err)
	}
	return &list.Items[0]
}

// run runs a script in a pod, with the certificate authority of the internet in
// $CA, and returns its exit code and what it printed.
func (f *field) run(ctx context.Context, pod *corev1.Pod, script string) (code int, output string) {
	f.Helper()
	const prelude = `export CA=/tmp/ca.pem HOME=/tmp; [ -e $CA ] || printf %s "$1" >$CA; timeout 20 bash -c "$2"`
	stdout, stderr, err := f.cluster.Exec(ctx, pod, "bash", "-c", prelude, "bash", f.authority, script)
	var exit utilexec.CodeExitError
	if err != nil && !errors.As(err, &exit) {
		f.Fatalf("%s: %v", script, err)
	}
	return exit.Code, stdout + stderr
}

const curl = "curl --silent --show-error --fail --cacert $CA --max-time 8 "

// reaches expects a script to succeed in the pod, and what it prints to hold
// the text.
func (f *field) reaches(pod *corev1.Pod, script, want string) {
	f.Helper()
	if code, output := f.run(f.Context(), pod, script); code != 0 || !strings.Contains(output, want) {
		f.Errorf("%s: exit code %d, %q; want %q", script, code, output, want)
	}
}

// blocked expects a script to fail in the pod.
func (f *field) blocked(pod *corev1.Pod, script string) {
	f.Helper()
	if code, output := f.run(f.Context(), pod, script); code == 0 {
		f.Errorf("%s: it succeeds: %q", script, output)
	}
}

// onlyFree expects a script to fail in the sandbox, and to succeed where no
// policy is: it is the policy that makes the difference.
func (f *field) onlyFree(pod *corev1.Pod, script string) {
	f.Helper()
	f.reaches(f.free, script, "")
	f.blocked(pod, script)
}

// denials are what the gateway has recorded.
func (f *field) denials() string {
	f.Helper()
	pods, err := f.cluster.Client.CoreV1().Pods(f.namespace).List(f.Context(), metav1.ListOptions{LabelSelector: render.ComponentLabel + "=" + render.GatewayComponent})
	if err != nil {
		f.Fatal(err)
	}
	var all strings.Builder
	for _, pod := range pods.Items {
		log, err := f.cluster.Client.CoreV1().Pods(f.namespace).GetLogs(pod.Name, &corev1.PodLogOptions{Container: render.GatewayComponent}).DoRaw(f.Context())
		if err != nil {
			f.Fatal(err)
		}
		all.Write(log)
	}
	return all.String()
}

// asked is how often the internet's DNS was asked for a name that holds text.
func (f *field) asked(text string) (times int) {
	f.Helper()
	_, output := f.run(f.Context(), f.free, curl+"http://"+f.internet.Resolver+"/")
	questions := map[string]int{}
	if err := json.Unmarshal([]byte(output), &questions); err != nil {
		f.Fatalf("%v: %s", err, output)
	}
	for name, n := range questions {
		if strings.Contains(name, text) {
			times += n
		}
	}
	return times
}
