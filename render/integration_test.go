//go:build integration

package render_test

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/agentpane/sandboxctl/reconcile/clustertest"
	"github.com/agentpane/sandboxctl/render"
)

// everything is a fleet in the given namespace with all that is not in one form only. Its pods are held back, so that
// nobody but the test changes them.
const everything = `
apiVersion: agentpane.io/v1alpha1
kind: SandboxFleet
name: team-a
namespace: %s
quota: {pods: 50, limits.cpu: 128000m, limits.memory: 0.25Ti, services: 5, count/jobs.batch: 0}
limits: {min: {cpu: 0.01, memory: 16384Ki}}
templates:
  node:
    image: agentpane/agent-sandbox:dev
    resources: {cpu: 0.5, memory: 1024Mi, requests: {memory: 0.25Gi}}
    workspace: {size: 1024Mi, storageClass: standard, retain: true}
    env: {NODE_ENV: development, EMPTY: ""}
    envFrom: [{secret: agent-token}, {configMap: agent-settings}]
    labels: {example.com/team: team-a, example.com/empty: ""}
    annotations: {example.com/contact: "#team-a"}
    pod:
      schedulingGates: [{name: example.com/held-back}]
      tolerations: [{key: sandboxes, operator: Exists, effect: NoSchedule}]
sandboxes:
  default: {template: node}
  open:
    template: node
    egress:
      allow:
      - {cidr: 203.0.113.0/24, ports: [5432, 443]}
      - {cidr: "2001:db8::/32"}
      - preset: public-http
      - preset: dns
  patched:
    template: node
    workspace: {emptyDir: 1024Mi}
    egress: {allow: []}
    pod:
      containers:
      - name: sandbox
        ports: [{containerPort: 8080}]
        env: [{name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
      - name: proxy
        image: agentpane/agent-sandbox:dev
        resources: {limits: {cpu: 0.1, memory: 131072Ki}}
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
        volumeMounts: [{name: scratch, mountPath: /tmp}]
      volumes: [{name: scratch, emptyDir: {}}]
  stopped: {template: node, state: stopped}
`

// TestServerStoresWhatIsRendered: under enforced Pod Security the server takes every object, gives each value back as it
// was sent, and has nothing to change when it is sent again.
func TestServerStoresWhatIsRendered(t *testing.T) {
	cluster := clustertest.Connect(t)
	namespace := cluster.Namespace(t, nil)
	objects := objectsOf(t, load(t, fmt.Appendf(nil, everything, namespace)))
	client := applier{client(t, cluster.Config)}
	t.Cleanup(func() { client.removeClusterWide(t, objects) })

	for _, object := range objects {
		stored, err := client.apply(t.Context(), object)
		if err != nil {
			t.Fatalf("%s: %v", identity(object), err)
		}
		differences(t, identity(object), object.Object.Object, stored.Object)
	}
	for _, object := range objects {
		clustertest.Eventually(t, identity(object)+" is unchanged when it is applied again", func(ctx context.Context) bool {
			before, err := client.of(object).Get(ctx, object.Object.GetName(), metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			after, err := client.apply(ctx, object)
			if err != nil {
				t.Fatal(err)
			}
			return before.GetResourceVersion() == after.GetResourceVersion() // or a controller was in between
		})
	}
}

// TestServiceAccountCanApply: the role suffices for all that is in the namespace, the role itself included.
func TestServiceAccountCanApply(t *testing.T) {
	cluster := clustertest.Connect(t)
	namespace := cluster.Namespace(t, nil)
	objects := objectsOf(t, load(t, fmt.Appendf(nil, everything, namespace)))
	admin := applier{client(t, cluster.Config)}
	t.Cleanup(func() { admin.removeClusterWide(t, objects) })
	for _, object := range objects {
		if object.Wave < render.PodsWave && object.Object.GetKind() != "PersistentVolumeClaim" {
			if _, err := admin.apply(t.Context(), object); err != nil {
				t.Fatalf("%s: %v", identity(object), err)
			}
		}
	}
	config := rest.CopyConfig(cluster.Config)
	config.Impersonate.UserName = "system:serviceaccount:" + namespace + ":agentpane-sandbox-controller-team-a"
	account := applier{client(t, config)}
	for _, object := range objects {
		if !render.KindOf(object.Object.GroupVersionKind()).Namespaced {
			continue
		}
		clustertest.Eventually(t, "the service account applies "+identity(object), func(ctx context.Context) bool {
			_, err := account.apply(ctx, object) // refused until the server's authorizer has seen the role
			return err == nil
		})
	}
}

// TestInit: process 1 of a sandbox reaps what others leave behind, survives the end of what it waits for, and ends by the
// signal and not by the kill that follows it; in whatever shell.
func TestInit(t *testing.T) {
	cluster := clustertest.Connect(t)
	for _, shell := range []string{"sh", "bash"} {
		t.Run(shell, func(t *testing.T) {
			fleet := fleetWith("team-a", cluster.Namespace(t, nil), "s", "p")
			fleet.Sandboxes[0].Image = clustertest.SandboxImage
			fleet.Sandboxes[0].Workspace.Size.Set(0)
			fleet.Sandboxes[0].Workspace.EmptyDir.Set(1 << 30)
			pod, _ := podOf(t, fleet)
			pod.Spec.Containers[0].Command[0] = "/bin/" + shell
			pod = cluster.Run(t, pod)
			run := func(script string) string {
				stdout, stderr, err := cluster.Exec(t.Context(), pod, "sh", "-c", script)
				if err != nil {
					t.Fatalf("%s: %v: %s", script, err, stderr)
				}
				return strings.TrimSpace(stdout)
			}

			orphan := run("(sleep 0.1 & echo $!)")
			clustertest.Eventually(t, "the orphan "+orphan+" is gone, and no zombie", func(context.Context) bool {
				return run("test -e /proc/"+orphan+" || echo gone") == "gone"
			})
			waited := run("pgrep -x -P 1 sleep")
			run("kill " + waited)
			clustertest.Eventually(t, "process 1 waits for another sleep", func(context.Context) bool {
				next := run("pgrep -x -P 1 sleep || true")
				return next != "" && next != waited
			})
			if end := ended(t, cluster, pod); end.ExitCode != 0 {
				t.Errorf("process 1 ended with %d (%s)", end.ExitCode, end.Reason)
			}
		})
	}
}

// ended deletes the pod and returns how its container ended, which is before its grace period does.
func ended(t *testing.T, cluster clustertest.Cluster, pod *corev1.Pod) corev1.ContainerStateTerminated {
	t.Helper()
	pods := cluster.Client.CoreV1().Pods(pod.Namespace)
	watch, err := pods.Watch(t.Context(), metav1.ListOptions{
		FieldSelector:   fields.OneTermEqualSelector(metav1.ObjectNameField, pod.Name).String(),
		ResourceVersion: pod.ResourceVersion,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	if err := pods.Delete(t.Context(), pod.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for event := range watch.ResultChan() {
		current, ok := event.Object.(*corev1.Pod)
		if !ok {
			t.Fatalf("watching the pod: %v", event.Object)
		}
		for _, status := range current.Status.ContainerStatuses {
			if status.RestartCount > 0 {
				t.Errorf("process 1 was started anew: %v", status.LastTerminationState)
			}
			if end := status.State.Terminated; end != nil {
				return *end
			}
		}
	}
	t.Fatal("the pod went without a word about how")
	return corev1.ContainerStateTerminated{}
}

// differences reports each value that was sent and is not what is stored.
func differences(t *testing.T, path string, sent, stored any) {
	t.Helper()
	switch sent := sent.(type) {
	case map[string]any:
		stored, _ := stored.(map[string]any)
		for key, value := range sent {
			if _, ok := stored[key]; !ok {
				t.Errorf("%s.%s is not stored", path, key)
				continue
			}
			differences(t, path+"."+key, value, stored[key])
		}
	case []any:
		stored, _ := stored.([]any)
		if len(sent) != len(stored) {
			t.Errorf("%s: sent %v, stored %v", path, sent, stored)
			return
		}
		for i := range sent {
			differences(t, fmt.Sprintf("%s[%d]", path, i), sent[i], stored[i])
		}
	default:
		if !reflect.DeepEqual(sent, stored) {
			t.Errorf("%s: sent %v (%[2]T), stored %v (%[3]T)", path, sent, stored)
		}
	}
}

// applier applies objects as sandboxctl does.
type applier struct{ dynamic.Interface }

func client(t *testing.T, config *rest.Config) dynamic.Interface {
	t.Helper()
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func (a applier) of(object render.Object) dynamic.ResourceInterface {
	kind := render.KindOf(object.Object.GroupVersionKind())
	if kind.Namespaced {
		return a.Resource(kind.Resource).Namespace(object.Object.GetNamespace())
	}
	return a.Resource(kind.Resource)
}

func (a applier) apply(ctx context.Context, object render.Object) (*unstructured.Unstructured, error) {
	body, err := json.Marshal(object.Object)
	if err != nil {
		return nil, err
	}
	return a.of(object).Patch(ctx, object.Object.GetName(), types.ApplyPatchType, body, metav1.PatchOptions{FieldManager: "sandboxctl"})
}

// removeClusterWide removes what does not go with the namespace.
func (a applier) removeClusterWide(t *testing.T, objects []render.Object) {
	t.Helper()
	for _, object := range objects {
		if kind := render.KindOf(object.Object.GroupVersionKind()); kind.Namespaced || kind.Wave == render.NamespaceWave {
			continue
		}
		if err := a.of(object).Delete(context.WithoutCancel(t.Context()), object.Object.GetName(), metav1.DeleteOptions{}); err != nil {
			t.Errorf("removing %s: %v", identity(object), err)
		}
	}
}
