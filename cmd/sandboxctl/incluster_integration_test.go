//go:build integration

package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// inCluster is a watch as manifests/in-cluster deploys it.
type inCluster struct {
	trial
	name string
}

// manifest is a file of manifests/in-cluster with the trial's fleet and
// namespace in the places of those that it names.
func (r trial) manifest(name string) []byte {
	r.Helper()
	content, err := os.ReadFile(filepath.Join("../../manifests/in-cluster", name))
	r.must(err)
	return []byte(strings.NewReplacer("agentpane-sandboxes", r.namespace, "quickstart", "trial").Replace(string(content)))
}

// deploy does what the head of the manifest tells an administrator to do.
func (r trial) deploy(file string) inCluster {
	r.Helper()
	r.done(r.run("apply", "--yes", "-f", file))
	r.publish(file)
	var deployment appsv1.Deployment
	r.must(yaml.UnmarshalStrict(r.manifest("watch.yaml"), &deployment))
	_, err := r.cluster.Client.AppsV1().Deployments(r.namespace).Create(r.Context(), &deployment, metav1.CreateOptions{})
	r.must(err)
	return inCluster{r, deployment.Name}
}

// publish writes the file into the ConfigMap. A kubelet looks at ConfigMaps
// once a minute or so, and at once when a pod of its own changes: hence the
// annotation.
func (r trial) publish(file string) {
	r.Helper()
	content, err := os.ReadFile(file)
	r.must(err)
	configMaps := r.cluster.Client.CoreV1().ConfigMaps(r.namespace)
	wanted := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "trial-fleet"}, Data: map[string]string{"sandboxes.yaml": string(content)}}
	updated, err := configMaps.Update(r.Context(), wanted, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		_, err = configMaps.Create(r.Context(), wanted, metav1.CreateOptions{})
		r.must(err)
		return
	}
	r.must(err)
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{"example.org/seen": updated.ResourceVersion}}})
	r.must(err)
	pods, err := r.cluster.Client.CoreV1().Pods(r.namespace).List(r.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/instance=trial"})
	r.must(err)
	for _, pod := range pods.Items {
		_, err := r.cluster.Client.CoreV1().Pods(r.namespace).Patch(r.Context(), pod.Name, types.MergePatchType, body, metav1.PatchOptions{})
		r.must(err)
	}
}

// leader is the pod that holds the fleet's Lease; other than the one of that
// name.
func (c inCluster) leader(other string) string {
	c.Helper()
	var leader string
	c.eventually("a leader", func(ctx context.Context) bool {
		lease, err := c.cluster.Client.CoordinationV1().Leases(c.namespace).Get(ctx, "agentpane-watch-trial", metav1.GetOptions{})
		if err != nil || lease.Spec.HolderIdentity == nil {
			return false
		}
		_, host, _ := strings.Cut(*lease.Spec.HolderIdentity, "@")
		leader, _, _ = strings.Cut(host, " ")
		return leader != "" && leader != other
	})
	return leader
}

// running waits until the sandbox has a pod that is ready, other than that one.
func (c inCluster) running(sandbox string, other types.UID) *corev1.Pod {
	c.Helper()
	var running *corev1.Pod
	c.eventually("sandbox "+sandbox, func(ctx context.Context) bool {
		pods, err := c.cluster.Client.CoreV1().Pods(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: "agentpane.io/sandbox-id=" + sandbox})
		if err != nil {
			return false
		}
		for _, pod := range pods.Items {
			for _, condition := range pod.Status.Conditions {
				if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil && pod.UID != other {
					running = &pod
					return true
				}
			}
		}
		return false
	})
	return running
}

// TestWatchInTheCluster: two replicas with the rights of the fleet's own
// account do what watch on a workstation does, and one takes over from the
// other.
func TestWatchInTheCluster(t *testing.T) {
	r := newTrial(t)
	file := r.file("", "  a: {template: t}\n")
	c := r.deploy(file)
	c.eventually("both replicas", func(ctx context.Context) bool {
		deployment, err := c.cluster.Client.AppsV1().Deployments(c.namespace).Get(ctx, c.name, metav1.GetOptions{})
		return err == nil && deployment.Status.ReadyReplicas == 2
	})
	first := c.leader("")

	r.file("", "  a: {template: t}\n  b: {template: t}\n")
	r.publish(file)
	c.running("b", "")

	r.must(r.cluster.Client.CoreV1().Pods(r.namespace).Delete(r.Context(), first, metav1.DeleteOptions{}))
	if second := c.leader(first); second == first {
		t.Errorf("%s still leads", second)
	}
	gone := c.running("a", "")
	r.must(r.cluster.Client.CoreV1().Pods(r.namespace).Delete(r.Context(), gone.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}))
	c.running("a", gone.UID)
	r.noChanges(file)
}

// TestGitSyncPatch: the server takes the patch for a file out of Git, and what
// comes of it mounts one of the two only, and passes the namespace's profile.
func TestGitSyncPatch(t *testing.T) {
	r := newTrial(t)
	var deployment appsv1.Deployment
	r.must(yaml.UnmarshalStrict(r.manifest("watch.yaml"), &deployment))
	deployments := r.cluster.Client.AppsV1().Deployments(r.namespace)
	deployment.Spec.Replicas = new(int32(0))
	_, err := deployments.Create(r.Context(), &deployment, metav1.CreateOptions{})
	r.must(err)
	patch, err := yaml.YAMLToJSONStrict(r.manifest("git-sync.patch.yaml"))
	r.must(err)
	patched, err := deployments.Patch(r.Context(), deployment.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{FieldValidation: metav1.FieldValidationStrict})
	r.must(err)
	spec := patched.Spec.Template.Spec
	if len(spec.Volumes) != 1 || spec.Volumes[0].EmptyDir == nil {
		t.Errorf("volumes %v, want that of Git only", spec.Volumes)
	}
	if mounts := spec.Containers[0].VolumeMounts; len(mounts) != 1 || mounts[0].MountPath != "/git" {
		t.Errorf("mounts %v, want /git only", mounts)
	}
	spec.ServiceAccountName = "default" // there is no fleet here
	_, err = r.cluster.Client.CoreV1().Pods(r.namespace).Create(r.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "admitted"}, Spec: spec},
		metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	r.must(err)
}
