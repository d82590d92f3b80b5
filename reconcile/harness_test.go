//go:build integration

package reconcile_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/agentpane/sandboxctl/reconcile"
	"github.com/agentpane/sandboxctl/reconcile/clustertest"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// bench is a fleet under test: its file is edited, planned and applied.
type bench struct {
	*testing.T
	cluster    clustertest.Cluster
	reconciler *reconcile.Reconciler
	namespace  string
	name       string
}

func newBench(t *testing.T) bench {
	t.Parallel()
	cluster := clustertest.Connect(t)
	namespace := cluster.Namespace(t, map[string]string{"pod-security.kubernetes.io/enforce": "restricted"})
	return bench{t, cluster, newReconciler(t, cluster, "the test"), namespace, "fleet"}
}

func newReconciler(t *testing.T, cluster clustertest.Cluster, holder string) *reconcile.Reconciler {
	t.Helper()
	reconciler, err := reconcile.New(cluster.Config, time.Now, holder)
	if err != nil {
		t.Fatal(err)
	}
	return reconciler
}

// fleet loads a file whose sandboxes are as given.
func (b bench) fleet(sandboxes string) (*schema.Fleet, []render.Object) {
	b.Helper()
	file := fmt.Sprintf(`apiVersion: agentpane.io/v1alpha1
kind: SandboxFleet
name: %s
namespace: %s
limits: {min: {cpu: 10m, memory: 16Mi}}
templates:
  t:
    image: %s
    resources: {cpu: 100m, memory: 64Mi}
    workspace: {emptyDir: 10Mi}
sandboxes:
%s`, b.name, b.namespace, clustertest.SandboxImage, sandboxes)
	fleets, found := schema.Load([]string{"-"}, strings.NewReader(file))
	if found.HasErrors() {
		b.Fatal(found)
	}
	objects, found := render.Objects(fleets[0])
	if found.HasErrors() {
		b.Fatal(found)
	}
	return fleets[0], objects
}

func (b bench) plan(sandboxes string, options reconcile.Options) (*schema.Fleet, plan.Plan) {
	b.Helper()
	fleet, objects := b.fleet(sandboxes)
	p, err := b.reconciler.Plan(b.Context(), fleet, objects, options)
	if err != nil {
		b.Fatal(err)
	}
	return fleet, p
}

// apply applies a file and waits, and checks that a plan then says that nothing
// changes.
func (b bench) apply(sandboxes string, options reconcile.Options) plan.Plan {
	b.Helper()
	fleet, p := b.plan(sandboxes, options)
	for _, change := range p.Blocked() {
		b.Fatalf("%s is blocked: %v %v", change.Ref, change.Problem, change.Conflicts)
	}
	result, err := b.reconciler.Apply(b.Context(), fleet, p, b.tell)
	if err != nil {
		b.Fatal(err)
	}
	if err := b.reconciler.WaitReady(b.Context(), fleet, result.Done, time.Minute, b.tell); err != nil {
		b.Fatal(err)
	}
	if _, after := b.plan(sandboxes, reconcile.Options{}); !after.Empty() {
		b.Errorf("a plan right after the apply has changes: %s", describe(after))
	}
	if _, after := b.plan(sandboxes, reconcile.Options{Full: true}); !after.Empty() {
		b.Errorf("a full plan right after the apply has changes: %s", describe(after))
	}
	return p
}

func (b bench) tell(event reconcile.Event) {
	b.Logf("%s %s %s %v", event.Change.Ref, event.Phase, event.Message, event.Err)
}

func describe(p plan.Plan) string {
	var lines []string
	for _, change := range p.Changes {
		lines = append(lines, fmt.Sprintf("%s %s (%s) %v", change.Action, change.Ref, change.Reason, change.Fields))
	}
	return strings.Join(lines, "\n")
}

// pods are the uids of the namespace's pods by sandbox.
func (b bench) pods() map[string]types.UID {
	b.Helper()
	list, err := b.cluster.Client.CoreV1().Pods(b.namespace).List(b.Context(), metav1.ListOptions{LabelSelector: render.SandboxLabel})
	if err != nil {
		b.Fatal(err)
	}
	uids := map[string]types.UID{}
	for _, pod := range list.Items {
		uids[pod.Labels[render.SandboxIDLabel]] = pod.UID
	}
	return uids
}

func (b bench) pod(sandbox string) *corev1.Pod {
	b.Helper()
	list, err := b.cluster.Client.CoreV1().Pods(b.namespace).List(b.Context(), metav1.ListOptions{LabelSelector: render.SandboxIDLabel + "=" + sandbox})
	if err != nil || len(list.Items) != 1 {
		b.Fatalf("sandbox %s has %d pods, %v", sandbox, len(list.Items), err)
	}
	return &list.Items[0]
}
