package claim

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/agentpane/sandboxctl/reconcile/pool"
	"github.com/agentpane/sandboxctl/render"
)

// storedPod is pod a of pool p.
func storedPod(uid, version string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{"kind": "Pod", "apiVersion": "v1", "metadata": map[string]any{
		"name": "a", "uid": uid, "resourceVersion": version,
		"labels": map[string]any{render.WarmPoolLabel: "true", render.PoolIDLabel: "p", render.WarmStateLabel: render.Warm},
	}}}
}

// TestPodStore: what is seen counts, but for an own write that it is too early to
// be seen.
func TestPodStore(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	var store *podStore
	write := func(uid, version string) func() { return func() { store.wrote(storedPod(uid, version)) } }
	see := func(uid, version string) func() { return func() { _ = store.Update(storedPod(uid, version)) } } // never fails
	list := func(objects ...any) func() { return func() { _ = store.Replace(objects, "") } }
	remove := func(uid string) func() { return func() { _ = store.Delete(storedPod(uid, "999")) } }
	fail := func(uid, version string) func() {
		return func() {
			store.tried([]*pool.Pod{{Name: "a", Pool: "p", UID: types.UID(uid), ResourceVersion: version}})
		}
	}
	wait := func() { now = now.Add(WriteMemory) }
	for name, test := range map[string]struct {
		steps []func()
		want  string // uid, version; "going" where it is not to be tried
	}{
		"nothing":                       {nil, ""},
		"it changes":                    {[]func(){see("u", "9"), see("u", "10")}, "u 10"},
		"a watch that is late":          {[]func(){see("u", "8"), write("u", "10"), see("u", "9")}, "u 10"},
		"a list that is late":           {[]func(){write("u", "10"), list(storedPod("u", "9"))}, "u 10"},
		"a write that was lost":         {[]func(){write("u", "10"), wait, list(storedPod("u", "9"))}, "u 9"},
		"etcd was restored":             {[]func(){see("u", "100"), list(storedPod("u", "50")), see("u", "51")}, "u 51"},
		"the same, another pod":         {[]func(){see("u", "100"), list(storedPod("v", "50"))}, "v 50"},
		"another pod of its name":       {[]func(){write("u", "100"), see("v", "50")}, "v 50"},
		"gone":                          {[]func(){see("u", "9"), remove("u")}, ""},
		"the one before it is gone":     {[]func(){see("u", "9"), write("v", "10"), remove("u")}, "v 10"},
		"not in the list":               {[]func(){see("u", "9"), list()}, ""},
		"not to be had":                 {[]func(){see("u", "9"), fail("u", "9"), see("u", "9"), list(storedPod("u", "9"))}, "u 9 going"},
		"not to be had as it was":       {[]func(){see("u", "9"), fail("u", "9"), see("u", "10")}, "u 10"},
		"not to be had as it once was":  {[]func(){see("u", "10"), fail("u", "9")}, "u 10"},
		"not to be had, and went":       {[]func(){see("u", "9"), fail("u", "9"), list(), see("u", "9")}, "u 9"},
		"not to be had, and another is": {[]func(){see("u", "9"), fail("u", "9"), see("v", "9")}, "v 9"},
	} {
		store = newPodStore(func() time.Time { return now })
		for _, step := range test.steps {
			step()
		}
		got := ""
		for _, pod := range store.of("p") {
			got += string(pod.UID) + " " + pod.ResourceVersion
			if pod.Going {
				got += " going"
			}
			if store.stands(pod) == pod.Going {
				t.Errorf("%s: %s may be tried: %t", name, got, pod.Going)
			}
		}
		if got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// TestPodStands: what was seen of a pod stands until it changes.
func TestPodStands(t *testing.T) {
	store := newPodStore(time.Now)
	store.wrote(storedPod("u", "9"))
	seen := store.of("p")[0]
	if !store.stands(seen) {
		t.Error("nothing has changed, and it does not stand")
	}
	store.wrote(storedPod("u", "10"))
	if store.stands(seen) {
		t.Error("it stands, and the pod has changed")
	}
	if store.stands(&pool.Pod{Name: "b", Pool: "p", UID: "w"}) {
		t.Error("a pod stands that nobody has seen")
	}
}
