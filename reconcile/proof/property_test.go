//go:build integration

package proof_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/agentpane/sandboxctl/reconcile/clustertest"
	"github.com/agentpane/sandboxctl/reconcile/proof"
)

var (
	rounds = flag.Int("proof.rounds", 300, "random states of a live object to compare with a dry run")
	seed   = flag.Uint64("proof.seed", 1, "seed of the random states")
)

// TestProofAgreesWithDryRun: what the proof calls unchanged, a dry run leaves
// unchanged, whatever we change in the configuration and others do to the live
// object.
func TestProofAgreesWithDryRun(t *testing.T) {
	cluster := clustertest.Connect(t)
	client, err := dynamic.NewForConfig(cluster.Config)
	if err != nil {
		t.Fatal(err)
	}
	namespace := cluster.Namespace(t, nil)
	random := rand.New(rand.NewPCG(*seed, 0))
	proved, unchanged := 0, 0
	for round := range *rounds {
		kind := kinds[random.IntN(len(kinds))]
		s := subject{t, client.Resource(kind.resource).Namespace(namespace), random, kind, fmt.Sprintf("round-%d", round)}
		desired := s.configuration()
		s.apply(desired, manager)
		for range random.IntN(3) {
			s.disturb()
		}
		if random.IntN(2) == 0 {
			desired = s.configuration()
		}
		live, err := s.client.Get(t.Context(), s.name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		claim, doubt := proof.Unchanged(desired, live, manager)
		dry, err := s.dryRun(desired)
		same := err == nil && cmp.Equal(comparable(live), comparable(dry))
		if claim && !same {
			t.Errorf("seed %d, round %d: proved unchanged, but the dry run says otherwise (%v):\n%s\ndesired: %v",
				*seed, round, err, cmp.Diff(comparable(live), comparable(dry)), desired.Object)
		}
		s.release()
		if same {
			unchanged++
			if claim {
				proved++
			} else {
				t.Logf("round %d: unchanged, but not proved: %s", round, doubt)
			}
		}
	}
	t.Logf("%d rounds: the dry run left %d unchanged, of which %d were proved", *rounds, unchanged, proved)
	if proved < *rounds/10 {
		t.Errorf("only %d of %d rounds were proved: the test shows nothing", proved, *rounds)
	}
}

// comparable is an object without what an apply changes even where it changes
// nothing.
func comparable(object *unstructured.Unstructured) map[string]any {
	if object == nil {
		return nil
	}
	content := object.DeepCopy()
	content.SetManagedFields(nil)
	return content.Object
}

// kind is a kind of object with values to choose from for its fields. Each of
// the ways in which managedFields describe fields occurs: maps, atomic values,
// lists by key and sets.
type kind struct {
	resource schema.GroupVersionResource
	gvk      schema.GroupVersionKind
	fields   []field
}

type field struct {
	path   []string
	values []any
}

func list(items ...any) []any { return items }

func mapOf(pairs ...any) map[string]any {
	m := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i].(string)] = pairs[i+1]
	}
	return m
}

func rule(cidr string, port int64) map[string]any {
	return mapOf("to", list(mapOf("ipBlock", mapOf("cidr", cidr))), "ports", list(mapOf("port", port, "protocol", "TCP")))
}

var kinds = []kind{
	{
		schema.GroupVersionResource{Version: "v1", Resource: "configmaps"},
		schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"},
		[]field{
			{[]string{"data", "a"}, list("1", "2")},
			{[]string{"data", "b"}, list("", "x")},
			{[]string{"metadata", "annotations", "x.io/y"}, list("1", "2")},
			{[]string{"metadata", "finalizers"}, list(list(), list("x.io/hold"), list("x.io/hold", "x.io/more"))},
		},
	},
	{
		schema.GroupVersionResource{Group: "networking.k8s.io", Version: "v1", Resource: "networkpolicies"},
		schema.GroupVersionKind{Group: "networking.k8s.io", Version: "v1", Kind: "NetworkPolicy"},
		[]field{
			{[]string{"spec", "podSelector"}, list(mapOf(), mapOf("matchLabels", mapOf("a", "b")))},
			{[]string{"spec", "policyTypes"}, list(list("Egress"), list("Ingress", "Egress"))},
			{[]string{"spec", "egress"}, list(list(), list(rule("10.0.0.0/8", 80)), list(rule("10.0.0.0/8", 80), rule("10.1.0.0/16", 443)))},
			{[]string{"metadata", "labels", "l"}, list("1", "2")},
		},
	},
	{
		schema.GroupVersionResource{Version: "v1", Resource: "services"},
		schema.GroupVersionKind{Version: "v1", Kind: "Service"},
		[]field{
			{[]string{"spec", "selector"}, list(mapOf("a", "b"), mapOf("a", "c", "d", "e"))},
			{[]string{"spec", "ports"}, list(
				list(mapOf("name", "a", "port", int64(80), "protocol", "TCP")),
				list(mapOf("name", "a", "port", int64(80), "protocol", "TCP"), mapOf("name", "b", "port", int64(53), "protocol", "UDP")),
				list(mapOf("name", "b", "port", int64(53), "protocol", "UDP"), mapOf("name", "a", "port", int64(80), "protocol", "TCP")),
				list(mapOf("name", "a", "port", int64(80), "protocol", "TCP", "targetPort", int64(8080))),
				list(mapOf("port", int64(80))), // without a key that the server defaults
			)},
			{[]string{"spec", "sessionAffinity"}, list("None", "ClientIP")},
		},
	},
}

// subject is one object under test.
type subject struct {
	*testing.T
	client dynamic.ResourceInterface
	random *rand.Rand
	kind   kind
	name   string
}

// configuration is a random one; ports are always there, as a Service needs
// some.
func (s subject) configuration() *unstructured.Unstructured {
	object := &unstructured.Unstructured{Object: map[string]any{}}
	object.SetGroupVersionKind(s.kind.gvk)
	object.SetName(s.name)
	for _, field := range s.kind.fields {
		if s.random.IntN(4) > 0 || field.path[len(field.path)-1] == "ports" {
			s.set(object.Object, field)
		}
	}
	return object
}

func (s subject) set(content map[string]any, field field) {
	value := field.values[s.random.IntN(len(field.values))]
	copied := mapOf("v", value)
	encoded, err := json.Marshal(copied)
	if err != nil {
		s.Fatal(err)
	}
	fresh := object(s.T, string(encoded))
	if err := unstructured.SetNestedField(content, fresh.Object["v"], field.path...); err != nil {
		s.Fatal(err)
	}
}

func (s subject) apply(object *unstructured.Unstructured, by string) {
	force := true
	body, err := json.Marshal(object)
	if err != nil {
		s.Fatal(err)
	}
	_, err = s.client.Patch(s.Context(), s.name, types.ApplyPatchType, body, metav1.PatchOptions{FieldManager: by, Force: &force})
	if err != nil && !apierrors.IsInvalid(err) { // not every random state is a valid one
		s.Fatal(err)
	}
}

// release removes finalizers, which would keep the namespace from going.
func (s subject) release() {
	_, err := s.client.Patch(s.Context(), s.name, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
	if err != nil {
		s.Fatal(err)
	}
}

func (s subject) dryRun(object *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	body, err := json.Marshal(object)
	if err != nil {
		s.Fatal(err)
	}
	return s.client.Patch(s.Context(), s.name, types.ApplyPatchType, body, metav1.PatchOptions{FieldManager: manager, DryRun: []string{metav1.DryRunAll}})
}

// disturb has somebody else change the object: by an apply, or by a patch that
// sets or removes a field.
func (s subject) disturb() {
	switch s.random.IntN(3) {
	case 0:
		s.apply(s.configuration(), "other")
	default:
		patch := map[string]any{}
		field := s.kind.fields[s.random.IntN(len(s.kind.fields))]
		if s.random.IntN(3) == 0 {
			field.values = []any{nil}
		}
		s.set(patch, field)
		body, err := json.Marshal(patch)
		if err != nil {
			s.Fatal(err)
		}
		_, err = s.client.Patch(s.Context(), s.name, types.MergePatchType, body, metav1.PatchOptions{FieldManager: "kubectl-edit"})
		if err != nil && !apierrors.IsInvalid(err) {
			s.Fatal(err)
		}
	}
}
