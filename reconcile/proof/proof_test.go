package proof_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/agentpane/sandboxctl/reconcile/proof"
)

const manager = "sandboxctl"

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	var content map[string]any
	if err := utiljson.Unmarshal([]byte(text), &content); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return &unstructured.Unstructured{Object: content}
}

// liveObject is desired as the server keeps it: with more fields than we
// applied, and the fields of other managers.
func liveObject(t *testing.T, spec, owned string) *unstructured.Unstructured {
	t.Helper()
	return object(t, `{"apiVersion":"v1","kind":"Thing","metadata":{"name":"a","uid":"1","resourceVersion":"7",
		"labels":{"ours":"1","theirs":"2"},
		"managedFields":[
		  {"manager":"other","operation":"Update","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:labels":{"f:theirs":{}}}}},
		  {"manager":"sandboxctl","operation":"Update","apiVersion":"v1","subresource":"status","fieldsType":"FieldsV1","fieldsV1":{"f:status":{}}},
		  {"manager":"sandboxctl","operation":"Apply","apiVersion":"v1","fieldsType":"FieldsV1",
		   "fieldsV1":{"f:metadata":{"f:labels":{"f:ours":{}}},"f:spec":`+owned+`}}]},
		"spec":`+spec+`,"status":{"x":1}}`)
}

func desiredObject(t *testing.T, spec string) *unstructured.Unstructured {
	t.Helper()
	return object(t, `{"apiVersion":"v1","kind":"Thing","metadata":{"name":"a","labels":{"ours":"1"}},"spec":`+spec+`}`)
}

func TestUnchanged(t *testing.T) {
	const containers = `{"f:containers":{"k:{\"name\":\"a\"}":{".":{},"f:name":{},"f:cpu":{}},"k:{\"name\":\"b\"}":{".":{},"f:name":{}}}}`
	for _, test := range []struct {
		name                 string
		desired, live, owned string
		doubt                string // empty: unchanged
	}{
		{"a scalar", `{"a":1}`, `{"a":1}`, `{"f:a":{}}`, ""},
		{"a number that is a float there", `{"a":1}`, `{"a":1.0}`, `{"f:a":{}}`, ""},
		{"another number", `{"a":1}`, `{"a":2}`, `{"f:a":{}}`, ".spec.a has another value"},
		{"a number as text", `{"a":1}`, `{"a":"1"}`, `{"f:a":{}}`, ".spec.a has another value"},
		{"a field of others", `{"a":1}`, `{"a":1,"b":2}`, `{"f:a":{}}`, ""},
		{"a field that is no longer wanted", `{"a":1}`, `{"a":1,"b":2}`, `{"f:a":{},"f:b":{}}`, "no longer wanted"},
		{"a field that is new", `{"a":1,"b":2}`, `{"a":1}`, `{"f:a":{}}`, ".spec.b is not owned"},
		{"a field that others set to what we want", `{"a":1,"b":2}`, `{"a":1,"b":2}`, `{"f:a":{}}`, ".spec.b is not owned"},
		{"a field that was removed by others", `{"a":1}`, `{}`, `{"f:a":{}}`, ".spec.a is missing"},
		{"an atomic list", `{"a":[1,2]}`, `{"a":[1,2]}`, `{"f:a":{}}`, ""},
		{"an atomic list in another order", `{"a":[1,2]}`, `{"a":[2,1]}`, `{"f:a":{}}`, "another value"},
		{"an atomic map that others added to", `{"a":{"x":1}}`, `{"a":{"x":1,"y":2}}`, `{"f:a":{}}`, "another value"},
		{"an empty map", `{"a":{}}`, `{"a":{}}`, `{"f:a":{}}`, ""},
		{"an empty map that is filled", `{"a":{}}`, `{"a":{"x":1}}`, `{"f:a":{}}`, "another value"},
		{"a null", `{"a":null}`, `{}`, `{"f:a":{}}`, ".spec.a is missing"},
		{"a map that became a list", `{"a":{"x":1}}`, `{"a":[1]}`, `{"f:a":{"f:x":{}}}`, "another type"},
		{"items by key, with fields of others",
			`{"containers":[{"name":"a","cpu":1},{"name":"b"}]}`,
			`{"containers":[{"name":"a","cpu":1,"default":"x"},{"name":"theirs"},{"name":"b"}]}`, containers, ""},
		{"items by key in another order",
			`{"containers":[{"name":"b"},{"name":"a","cpu":1}]}`,
			`{"containers":[{"name":"a","cpu":1},{"name":"b"}]}`, containers, "in another order"},
		{"an item that is no longer wanted",
			`{"containers":[{"name":"a","cpu":1}]}`,
			`{"containers":[{"name":"a","cpu":1},{"name":"b"}]}`, containers, "no longer wanted"},
		{"an item that others removed",
			`{"containers":[{"name":"a","cpu":1},{"name":"b"}]}`,
			`{"containers":[{"name":"a","cpu":1}]}`, containers, "exactly one item"},
		{"an item that was renamed",
			`{"containers":[{"name":"a","cpu":1},{"name":"c"}]}`,
			`{"containers":[{"name":"a","cpu":1},{"name":"b"}]}`, containers, "exactly one item"},
		{"an item twice",
			`{"containers":[{"name":"a","cpu":1},{"name":"a","cpu":1}]}`,
			`{"containers":[{"name":"a","cpu":1},{"name":"b"}]}`, containers, "exactly one item"},
		{"an item that lacks a defaulted key",
			`{"ports":[{"port":80}]}`, `{"ports":[{"port":80,"protocol":"TCP"}]}`,
			`{"f:ports":{"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:port":{}}}}`, "exactly one item"},
		{"a set", `{"a":["x","y"]}`, `{"a":["x","theirs","y"]}`, `{"f:a":{"v:\"x\"":{},"v:\"y\"":{}}}`, ""},
		{"a set in another order", `{"a":["y","x"]}`, `{"a":["x","y"]}`, `{"f:a":{"v:\"x\"":{},"v:\"y\"":{}}}`, "in another order"},
		{"items of an unknown kind", `{"a":["x"]}`, `{"a":["x"]}`, `{"f:a":{"i:0":{}}}`, "unknown kind"},
		{"items that cannot be read", `{"a":["x"]}`, `{"a":["x"]}`, `{"f:a":{"k:{":{}}}`, "cannot be read"},
	} {
		t.Run(test.name, func(t *testing.T) {
			unchanged, doubt := proof.Unchanged(desiredObject(t, test.desired), liveObject(t, test.live, test.owned), manager)
			if unchanged != (test.doubt == "") || !strings.Contains(doubt, test.doubt) {
				t.Errorf("got %v, %q; want the doubt %q", unchanged, doubt, test.doubt)
			}
		})
	}
}

func TestUnchangedNeedsOurOwnEntry(t *testing.T) {
	desired := desiredObject(t, `{"a":1}`)
	for _, test := range []struct {
		name   string
		change func(live map[string]any)
		doubt  string
	}{
		{"none", func(live map[string]any) { delete(live, "managedFields") }, "has not applied it"},
		{"another manager's", func(live map[string]any) { ours(live)["manager"] = "kubectl" }, "has not applied it"},
		{"an update's", func(live map[string]any) { ours(live)["operation"] = "Update" }, "has not applied it"},
		{"a subresource's", func(live map[string]any) { ours(live)["subresource"] = "resize" }, "has not applied it"},
		{"of another version", func(live map[string]any) { ours(live)["apiVersion"] = "v2" }, "API version v2"},
		{"two", func(live map[string]any) {
			live["managedFields"] = append(live["managedFields"].([]any), ours(live))
		}, "more than one"},
		{"of an object that goes", func(live map[string]any) { live["deletionTimestamp"] = "2026-01-01T00:00:00Z" }, "being deleted"},
	} {
		t.Run(test.name, func(t *testing.T) {
			live := liveObject(t, `{"a":1}`, `{"f:a":{}}`)
			if unchanged, doubt := proof.Unchanged(desired, live, manager); !unchanged {
				t.Fatalf("before the change: %s", doubt)
			}
			test.change(live.Object["metadata"].(map[string]any))
			unchanged, doubt := proof.Unchanged(desired, live, manager)
			if unchanged || !strings.Contains(doubt, test.doubt) {
				t.Errorf("got %v, %q; want the doubt %q", unchanged, doubt, test.doubt)
			}
		})
	}
}

func ours(metadata map[string]any) map[string]any {
	entries := metadata["managedFields"].([]any)
	return entries[len(entries)-1].(map[string]any)
}

// FuzzUnchanged: whatever managedFields say, the proof ends, and never claims
// that an object is unchanged whose values differ from what is wanted.
func FuzzUnchanged(f *testing.F) {
	f.Add(`{"a":1}`, `{"a":1}`, `{"f:a":{}}`)
	f.Add(`{"a":[{"n":"x"}]}`, `{"a":[{"n":"x","m":1}]}`, `{"f:a":{"k:{\"n\":\"x\"}":{".":{},"f:n":{}}}}`)
	f.Add(`{"a":["x"]}`, `{"a":["x","y"]}`, `{"f:a":{"v:\"x\"":{}}}`)
	f.Fuzz(func(t *testing.T, desired, live, owned string) {
		for _, text := range []string{desired, live, owned} {
			var content map[string]any
			if json.Unmarshal([]byte(text), &content) != nil || content == nil {
				return
			}
		}
		want, current := desiredObject(t, desired), liveObject(t, live, owned)
		if unchanged, _ := proof.Unchanged(want, current, manager); unchanged && !contains(current.Object["spec"], want.Object["spec"]) {
			t.Errorf("unchanged, but %s does not hold %s", live, desired)
		}
	})
}

// contains is a second, simpler statement of what "unchanged" implies: all of
// wanted is somewhere in value.
func contains(value, wanted any) bool {
	switch wanted := wanted.(type) {
	case map[string]any:
		value, ok := value.(map[string]any)
		for key := range wanted {
			ok = ok && contains(value[key], wanted[key])
		}
		return ok
	case []any:
		values, ok := value.([]any)
		for _, item := range wanted {
			found := false
			for _, value := range values {
				found = found || contains(value, item)
			}
			ok = ok && found
		}
		return ok
	}
	a, errA := json.Marshal(value)
	b, errB := json.Marshal(wanted)
	return errA == nil && errB == nil && string(a) == string(b)
}

func TestOwnedIsWhatWasApplied(t *testing.T) {
	live := liveObject(t,
		`{"containers":[{"name":"a","cpu":1,"default":"x"},{"name":"theirs"}],"atomic":[1,{"x":2}],"set":["x","theirs"],"default":1}`,
		`{"f:containers":{"k:{\"name\":\"a\"}":{".":{},"f:name":{},"f:cpu":{}}},"f:atomic":{},"f:set":{"v:\"x\"":{}}}`)
	want := object(t, `{"metadata":{"labels":{"ours":"1"}},"spec":{"containers":[{"name":"a","cpu":1}],"atomic":[1,{"x":2}],"set":["x"]}}`)
	if diff := cmp.Diff(want.Object, proof.Owned(live, manager)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if owned := proof.Owned(live, "nobody"); owned != nil {
		t.Errorf("nobody owns %v", owned)
	}
}

func BenchmarkUnchanged(b *testing.B) {
	content, err := os.ReadFile("testdata/pod.json") // a pod as a server keeps it
	if err != nil {
		b.Fatal(err)
	}
	live := &unstructured.Unstructured{}
	if err := live.UnmarshalJSON(content); err != nil {
		b.Fatal(err)
	}
	desired := &unstructured.Unstructured{Object: proof.Owned(live, manager)}
	desired.SetGroupVersionKind(live.GroupVersionKind())
	desired.SetName(live.GetName())
	b.ReportAllocs()
	for b.Loop() {
		if unchanged, doubt := proof.Unchanged(desired, live, manager); !unchanged {
			b.Fatal(doubt)
		}
	}
}
