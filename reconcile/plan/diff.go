package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/reconcile/session"
	"github.com/agentpane/sandboxctl/render"
)

// Field is a value that changes. A value that is not there is nil.
type Field struct {
	// Path is as `.spec.containers[sandbox].env[EDITOR].value`: items of a
	// list stand under their key where they have one.
	Path     string
	Old, New any
	// Sensitive: Old and New were replaced by what may be shown.
	Sensitive bool
}

// volatile are the fields that the server keeps for itself.
var volatile = []string{
	".status",
	".metadata.creationTimestamp", ".metadata.deletionGracePeriodSeconds", ".metadata.deletionTimestamp",
	".metadata.generation", ".metadata.managedFields", ".metadata.resourceVersion", ".metadata.selfLink", ".metadata.uid",
}

// notes are the annotations by which sandboxctl and the cluster's controller of
// volumes note something down.
var notes = []string{
	session.NoteAnnotation, render.ActivityAnnotation, render.EnforcementAnnotation, render.LockAnnotation,
	"pv.kubernetes.io/bind-completed", "pv.kubernetes.io/bound-by-controller", "volume.kubernetes.io/selected-node",
	"volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner",
}

// Digest is a hash of what people and programs have written to an object. It
// stays the same when something is noted down that the plan does not follow from,
// as a pod's status, which changes the resourceVersion all the time, or where the
// cluster has put it.
func Digest(object *unstructured.Unstructured) string {
	content := object.DeepCopy().Object
	for _, path := range volatile {
		unstructured.RemoveNestedField(content, strings.Split(path[1:], ".")...)
	}
	for _, place := range []string{"nodeName", "volumeName"} { // of a pod and of a volume claim
		unstructured.RemoveNestedField(content, "spec", place)
	}
	for _, annotation := range notes {
		unstructured.RemoveNestedField(content, "metadata", "annotations", annotation)
	}
	if annotations, _, _ := unstructured.NestedMap(content, "metadata", "annotations"); len(annotations) == 0 {
		unstructured.RemoveNestedField(content, "metadata", "annotations")
	}
	encoded, err := json.Marshal(content) // sorts the keys
	if err != nil {
		return "" // it came out of JSON: this cannot be
	}
	sum := sha256.Sum256(encoded)
	return hex.EncodeToString(sum[:])
}

// Diff are the values in which two objects differ: fields by name, items of a
// list in their order. A value that is a whole on one side and missing on the
// other is given leaf by leaf.
func Diff(old, new map[string]any) []Field {
	var fields []Field
	collect(&fields, "", any(old), any(new))
	return fields
}

func collect(fields *[]Field, path string, old, new any) {
	if slices.Contains(volatile, path) || reflect.DeepEqual(old, new) {
		return
	}
	oldKeys, oldValues := children(old)
	newKeys, newValues := children(new)
	isLeaf := (oldValues == nil && old != nil) || (newValues == nil && new != nil)
	if isLeaf || len(oldValues)+len(newValues) == 0 {
		*fields = append(*fields, Field{Path: path, Old: old, New: new})
		return
	}
	keys := oldKeys
	for _, key := range newKeys {
		if _, both := oldValues[key]; !both {
			keys = append(keys, key)
		}
	}
	_, oldIsList := old.([]any)
	if _, newIsList := new.([]any); !oldIsList && !newIsList {
		slices.Sort(keys)
	}
	for _, key := range keys {
		collect(fields, path+key, oldValues[key], newValues[key])
	}
}

// children are the values below a map or a list by the path element that leads
// to them, and these in order; nil for a scalar.
func children(value any) (keys []string, below map[string]any) {
	switch value := value.(type) {
	case map[string]any:
		below = make(map[string]any, len(value))
		for name, child := range value {
			key := element(name)
			keys, below[key] = append(keys, key), child
		}
	case []any:
		below = make(map[string]any, len(value))
		for i, child := range value {
			key := "[" + itemKey(child, i) + "]"
			if _, twice := below[key]; twice {
				key = "[" + strconv.Itoa(i) + "]"
			}
			keys, below[key] = append(keys, key), child
		}
	}
	return keys, below
}

// element is a map's key as a part of a path; one that could be mistaken for
// more than one is quoted.
func element(key string) string {
	if strings.ContainsAny(key, ".[]/") {
		return "[" + strconv.Quote(key) + "]"
	}
	return "." + key
}

// listKeys are the fields that tell the items of Kubernetes' lists apart
// (x-kubernetes-list-map-keys of the built-in types), the most telling first.
var listKeys = [][]string{{"name"}, {"mountPath"}, {"containerPort", "protocol"}, {"port", "protocol"}, {"ip"}, {"type"}}

func itemKey(item any, index int) string {
	object, ok := item.(map[string]any)
	if !ok {
		return strconv.Itoa(index)
	}
	for _, keys := range listKeys {
		if _, ok := object[keys[0]]; !ok {
			continue
		}
		var parts []string
		for _, key := range keys {
			if value, ok := object[key]; ok {
				parts = append(parts, fmt.Sprint(value))
			}
		}
		return strings.Join(parts, "/")
	}
	return strconv.Itoa(index)
}
