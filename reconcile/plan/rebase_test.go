package plan

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// pooledFleet is a fleet with a sandbox that has a pool, and what it renders to.
func pooledFleet(t *testing.T, workspace string) ([]render.Object, render.Pool) {
	t.Helper()
	fleets, found := schema.Load([]string{"-"}, strings.NewReader(`
apiVersion: agentpane.io/v1alpha1
kind: SandboxFleet
name: f
templates: {t: {image: "i:1", workspace: `+workspace+`}}
pools: {p: {template: t}}
sandboxes: {api: {pool: p, env: {A: "1"}}}
`))
	if found.HasErrors() {
		t.Fatal(found)
	}
	objects, found := render.Objects(fleets[0])
	if found.HasErrors() {
		t.Fatal(found)
	}
	pools, err := render.Pools(fleets[0])
	if err != nil {
		t.Fatal(err)
	}
	return objects, pools[0]
}

func find(objects []render.Object, kind string) *render.Object {
	for i := range objects {
		if objects[i].Object.GetKind() == kind {
			return &objects[i]
		}
	}
	return nil
}

func liveOf(objects ...*unstructured.Unstructured) map[Ref]*unstructured.Unstructured {
	live := map[Ref]*unstructured.Unstructured{}
	for _, object := range objects {
		live[RefOf(object)] = object
	}
	return live
}

// claimedPod is a pod of the pool that is the sandbox's.
func claimedPod(pool render.Pool, annotations map[string]string) *unstructured.Unstructured {
	warm, _ := pool.WarmPod(1, "x")
	return render.OnPod(pool.Claimed(render.Claim{Sandbox: "api", Project: "api", Annotations: annotations}), warm.GetName(), render.WorkspaceOf(warm))
}

func TestRebase(t *testing.T) {
	const scratch, disk = "{emptyDir: 1Gi}", "{size: 1Gi}"
	t.Run("a new sandbox takes its volume along", func(t *testing.T) {
		objects, _ := pooledFleet(t, disk)
		got := Rebase(objects, nil)
		if pod := find(got, "Pod"); find(got, volumeKind) != nil || pod.Volume == nil || pod.Adopted == nil {
			t.Errorf("got %+v", pod)
		}
	})
	t.Run("an adopted pod is the sandbox, with the marks of its claim", func(t *testing.T) {
		objects, pool := pooledFleet(t, disk)
		got := Rebase(objects, liveOf(claimedPod(pool, map[string]string{render.OriginAnnotation: "warm"})))
		pod, volume := find(got, "Pod"), find(got, volumeKind)
		if pod.Object.GetName() != pool.PodName(1) || pod.Object.GetAnnotations()[render.OriginAnnotation] != "warm" || pod.Object.GetAnnotations()[render.EnvAnnotation] == "" {
			t.Errorf("the pod is %v", pod.Object)
		}
		if volume.Object.GetName() != pool.PodName(1)+"-x" || pod.Adopted != nil || render.WorkspaceOf(pod.Cold) != volume.Object.GetName() {
			t.Errorf("the volume is %v, the pod %v, without the pool %v", volume.Object, pod.Object, pod.Cold)
		}
	})
	t.Run("a volume that is there is not left for another", func(t *testing.T) {
		objects, pool := pooledFleet(t, disk)
		_, volume := pool.WarmPod(1, "x")
		labels := volume.GetLabels()
		labels[render.SandboxIDLabel] = "api"
		volume.SetLabels(labels)
		pod := find(Rebase(objects, liveOf(volume)), "Pod")
		if pod.Adopted != nil || render.WorkspaceOf(pod.Object) != volume.GetName() {
			t.Errorf("got %+v", pod)
		}
	})
	t.Run("nor is that of a pod that goes", func(t *testing.T) {
		objects, _ := pooledFleet(t, disk)
		going := find(objects, "Pod").Object.DeepCopy()
		going.SetDeletionTimestamp(new(going.GetCreationTimestamp()))
		if pod := find(Rebase(objects, liveOf(going)), "Pod"); pod.Adopted != nil {
			t.Errorf("got %+v", pod)
		}
	})
	t.Run("a program's sandbox of that name is not the file's", func(t *testing.T) {
		objects, pool := pooledFleet(t, scratch)
		live := liveOf(claimedPod(pool, map[string]string{render.LeaseUntilAnnotation: "2030-01-01T00:00:00Z"}))
		pod := find(Rebase(objects, live), "Pod")
		if render.IsPoolPod(pod.Object.GetName()) {
			t.Errorf("got %v", pod.Object)
		}
		in := Input{Fleet: "f", Desired: Rebase(objects, live), Live: live}
		answers := map[Ref]Answer{}
		for _, question := range in.Questions() {
			answers[RefOf(question.Desired)] = Answer{}
		}
		if blocked := Make(in, answers).Blocked(); len(blocked) != 1 || !strings.Contains(blocked[0].Problem.Error(), "a program has claimed") {
			t.Errorf("blocked: %+v", blocked)
		}
	})
	t.Run("the workspace of a program's sandbox is in use, also a retained one", func(t *testing.T) {
		_, pool := pooledFleet(t, "{size: 1Gi, retain: true}")
		for until, want := range map[string]int{"2030-01-01T00:00:00Z": 0, "2020-01-01T00:00:00Z": 2} {
			claimed := claimedPod(pool, map[string]string{render.LeaseUntilAnnotation: until})
			volume := pool.Volume.DeepCopy()
			volume.SetName(render.WorkspaceOf(claimed))
			in := Input{Fleet: "f", Live: liveOf(claimed, volume), Sandboxes: 1, Prune: Prune{Retained: true}}
			in.Pools.Now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			if p := Make(in, nil); len(p.Changes) != want || len(p.Kept) != 0 {
				t.Errorf("claimed until %s: got %v, kept %v; want %d to go", until, p.Changes, p.Kept, want)
			}
		}
	})
	t.Run("a pod of another name is replaced, never doubled", func(t *testing.T) {
		objects, _ := pooledFleet(t, scratch)
		old := find(objects, "Pod").Object.DeepCopy()
		old.SetName("agentpane-former-project-1")
		old.SetUID("u")
		live := liveOf(old)
		in := Input{Fleet: "f", Desired: Rebase(objects, live), Live: live}
		answers := map[Ref]Answer{}
		for _, question := range in.Questions() {
			answers[RefOf(question.Desired)] = Answer{}
		}
		var pods []Change
		for _, change := range Make(in, answers).Changes {
			if change.Ref.Kind == "Pod" {
				pods = append(pods, change)
			}
		}
		if len(pods) != 1 || pods[0].Action != Replace || pods[0].Ref.Name != old.GetName() || pods[0].UID != "u" {
			t.Errorf("the changes are %+v", pods)
		}
	})
}
