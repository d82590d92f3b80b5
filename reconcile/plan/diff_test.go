package plan

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/agentpane/sandboxctl/reconcile/failure"
)

func parse(t *testing.T, text string) map[string]any {
	t.Helper()
	var value map[string]any
	if err := utiljson.Unmarshal([]byte(text), &value); err != nil {
		t.Fatal(err)
	}
	return value
}

func TestDiff(t *testing.T) {
	for _, test := range []struct {
		name, old, new string
		want           []Field
	}{
		{"nothing", `{"a":1}`, `{"a":1}`, nil},
		{"a value", `{"a":1}`, `{"a":2}`, []Field{{Path: ".a", Old: int64(1), New: int64(2)}}},
		{"a new map, leaf by leaf", `{}`, `{"a":{"b":1,"c":"x"}}`, []Field{{Path: ".a.b", New: int64(1)}, {Path: ".a.c", New: "x"}}},
		{"a map that goes", `{"a":{"b":1}}`, `{}`, []Field{{Path: ".a.b", Old: int64(1)}}},
		{"an empty map that comes", `{}`, `{"a":{}}`, []Field{{Path: ".a", New: map[string]any{}}}},
		{"a map that becomes a value", `{"a":{"b":1}}`, `{"a":1}`, []Field{{Path: ".a", Old: map[string]any{"b": int64(1)}, New: int64(1)}}},
		{"items by name, in another order",
			`{"c":[{"name":"x","v":1},{"name":"y","v":2}]}`, `{"c":[{"name":"y","v":2},{"name":"x","v":3}]}`,
			[]Field{{Path: ".c[x].v", Old: int64(1), New: int64(3)}}},
		{"an item that comes, one that goes",
			`{"c":[{"name":"x"}]}`, `{"c":[{"name":"y"}]}`,
			[]Field{{Path: ".c[x].name", Old: "x"}, {Path: ".c[y].name", New: "y"}}},
		{"items by two keys",
			`{"p":[{"port":53,"protocol":"UDP"},{"port":53,"protocol":"TCP","n":1}]}`,
			`{"p":[{"port":53,"protocol":"UDP"},{"port":53,"protocol":"TCP","n":2}]}`,
			[]Field{{Path: ".p[53/TCP].n", Old: int64(1), New: int64(2)}}},
		{"items with the same name",
			`{"c":[{"name":"x"},{"name":"x","v":1}]}`, `{"c":[{"name":"x"},{"name":"x","v":2}]}`,
			[]Field{{Path: ".c[1].v", Old: int64(1), New: int64(2)}}},
		{"plain items", `{"a":["x","y"]}`, `{"a":["x","z"]}`, []Field{{Path: ".a[1]", Old: "y", New: "z"}}},
		{"a key with dots", `{}`, `{"labels":{"a.io/b":"c"}}`, []Field{{Path: `.labels["a.io/b"]`, New: "c"}}},
		{"what the server keeps for itself",
			`{"metadata":{"uid":"1","resourceVersion":"1","managedFields":[{}]},"status":{"x":1}}`,
			`{"metadata":{"uid":"2","resourceVersion":"2"},"status":{"x":2}}`, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, Diff(parse(t, test.old), parse(t, test.new))); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestMask(t *testing.T) {
	const env = ".spec.containers[sandbox].env"
	fields := []Field{
		{Path: env + "[GITHUB_TOKEN].value", Old: "abc", New: "def"},
		{Path: env + "[API_KEY].value", New: "abc"},
		{Path: env + "[db_password].value", Old: "abc"},
		{Path: env + "[EDITOR].value", Old: "vi", New: "vim"},
		{Path: env + "[GITHUB_TOKEN].name", New: "GITHUB_TOKEN"},
		{Path: env + "[OPENAI_KEY].value", New: "abc"},
		{Path: env + "[SSH_KEY_PASSPHRASE].value", New: "abc"},
		{Path: env + "[DB_PWD].value", New: "abc"},
		{Path: env + "[GITHUB_PAT].value", New: "abc"},
		{Path: env + "[SENTRY_DSN].value", New: "abc"},
		{Path: env + "[PATH].value", New: "/bin"},
		{Path: env + "[KEYBOARD].value", New: "us"},
		{Path: env + "[DATABASE_URL].value", Old: "postgres://db/x", New: "postgres://me:secret@db/x"},
		{Path: ".spec.containers[sandbox].args[0]", New: "--db=postgres://me:secret@db"},
		{Path: ".spec.containers[sandbox].args[1]", New: "http://a.example:80/b@c"},
		{Path: `.metadata.annotations["kubectl.kubernetes.io/last-applied-configuration"]`, Old: "{}"},
	}
	want := []Field{
		{Path: fields[0].Path, Old: Masked, New: MaskedChanged, Sensitive: true},
		{Path: fields[1].Path, New: Masked, Sensitive: true},
		{Path: fields[2].Path, Old: Masked, Sensitive: true},
		fields[3], fields[4],
		{Path: fields[5].Path, New: Masked, Sensitive: true},
		{Path: fields[6].Path, New: Masked, Sensitive: true},
		{Path: fields[7].Path, New: Masked, Sensitive: true},
		{Path: fields[8].Path, New: Masked, Sensitive: true},
		{Path: fields[9].Path, New: Masked, Sensitive: true},
		fields[10], fields[11],
		{Path: fields[12].Path, Old: Masked, New: MaskedChanged, Sensitive: true},
		{Path: fields[13].Path, New: Masked, Sensitive: true},
		fields[14],
		{Path: fields[15].Path, Old: Masked, Sensitive: true},
	}
	if diff := cmp.Diff(want, mask("Pod", fields)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if fields[0].Old != "abc" {
		t.Error("masking changed what it was given")
	}
	secret := mask("Secret", []Field{{Path: ".data.a", Old: "x", New: "y"}, {Path: ".type", New: "Opaque"}})
	if secret[0].New != MaskedChanged || secret[1].New != "Opaque" {
		t.Errorf("a Secret: %v", secret)
	}
}

// TestRefusalsAreMasked: what refuses an object may repeat what it has read there.
func TestRefusalsAreMasked(t *testing.T) {
	object := pod(t, "a", `{"containers":[{"name":"sandbox","env":[{"name":"API_TOKEN","value":"tops3cret"},{"name":"EDITOR","value":"nano"}]}]}`)
	refusal := failure.New(failure.AdmissionRefused, failure.Object{Kind: "pod", Name: "a"}, "webhook w: env tops3cret, nano")
	p := Make(input(wanted(object)), map[Ref]Answer{RefOf(object): {Problem: refusal}})
	got := p.Changes[0].Problem
	if want := "env (sensitive), nano"; !strings.HasSuffix(got.Error(), want) || failure.CodeOf(got) != failure.AdmissionRefused {
		t.Errorf("got %v, want %s", got, want)
	}
}

// TestDigest: it is of what was written to an object, not of what became of it.
func TestDigest(t *testing.T) {
	const before = `{"kind":"Pod","metadata":{"name":"a","resourceVersion":"1"},"spec":{"image":"x"}}`
	for after, same := range map[string]bool{
		`{"kind":"Pod","metadata":{"name":"a","resourceVersion":"2"},"spec":{"image":"x"},"status":{"phase":"Running"}}`: true,
		`{"kind":"Pod","metadata":{"name":"a"},"spec":{"image":"x","nodeName":"n"}}`:                                     true,
		`{"kind":"Pod","metadata":{"name":"a","annotations":{"agentpane.io/sessions":"x"}},"spec":{"image":"x"}}`:        true,
		`{"kind":"Pod","metadata":{"name":"a","annotations":{"theirs":"x"}},"spec":{"image":"x"}}`:                       false,
		`{"kind":"Pod","metadata":{"name":"a","labels":{"theirs":"x"}},"spec":{"image":"x"}}`:                            false,
		`{"kind":"Pod","metadata":{"name":"a"},"spec":{"image":"y"}}`:                                                    false,
	} {
		digest := func(object string) string { return Digest(&unstructured.Unstructured{Object: parse(t, object)}) }
		if got := digest(before) == digest(after); got != same {
			t.Errorf("%s: the same is %t, want %t", after, got, same)
		}
	}
}
