// Package proof shows, without asking the server, that applying an object would
// change nothing.
//
// Server-side apply of a configuration by a manager changes nothing exactly
// when the manager's entry in the live object's managedFields owns exactly the
// leaves of that configuration, at the same API version, and those leaves have
// the same values in the same order in the live object. Both stand in the
// answer of one LIST, so a plan of a thousand unchanged objects costs a handful
// of requests. The package never guesses: what it cannot show, it calls
// doubtful, and then a dry run decides. Slow at worst, never wrong, but for one
// thing that no reader of managedFields can see: a mutating webhook that was
// installed after the object was applied.
package proof

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
)

// Unchanged tells whether applying desired as manager would leave live as it
// is. Where it returns false, doubt says why; it is for people who wonder why a
// plan was slow, and no statement about what would change.
func Unchanged(desired, live *unstructured.Unstructured, manager string) (unchanged bool, doubt string) {
	if live.GetDeletionTimestamp() != nil {
		return false, "it is being deleted"
	}
	owned, doubt := ownedFields(live, manager, desired.GetAPIVersion())
	if doubt != "" {
		return false, doubt
	}
	return walk(desiredFields(desired), live.Object, owned)
}

// ownedFields is the manager's entry in managedFields. Entries for subresources
// are others, and say nothing about the main resource. They are read as they
// came, since turning them into metav1.ManagedFieldsEntry and back costs more
// than all the rest of a proof.
func ownedFields(live *unstructured.Unstructured, manager, apiVersion string) (fields map[string]any, doubt string) {
	metadata, _ := live.Object["metadata"].(map[string]any)
	entries, _ := metadata["managedFields"].([]any)
	found := false
	for _, entry := range entries {
		entry, _ := entry.(map[string]any)
		subresource, _ := entry["subresource"].(string)
		if entry["manager"] != manager || entry["operation"] != string(metav1.ManagedFieldsOperationApply) || subresource != "" {
			continue
		}
		switch {
		case found:
			return nil, "it was applied at more than one API version"
		case entry["apiVersion"] != apiVersion:
			return nil, fmt.Sprintf("it was applied at API version %v", entry["apiVersion"])
		}
		if fields, found = entry["fieldsV1"].(map[string]any); !found {
			return nil, "its managedFields are of an unknown type"
		}
	}
	if !found {
		return nil, manager + " has not applied it"
	}
	return fields, ""
}

// desiredFields is what of the object managedFields speaks of: all but what
// tells which object it is.
func desiredFields(desired *unstructured.Unstructured) map[string]any {
	fields := without(desired.Object, "apiVersion", "kind", "metadata")
	if metadata, ok := desired.Object["metadata"].(map[string]any); ok {
		if metadata = without(metadata, "name", "namespace", "uid", "resourceVersion"); len(metadata) > 0 {
			fields["metadata"] = metadata
		}
	}
	return fields
}

func without(object map[string]any, keys ...string) map[string]any {
	rest := make(map[string]any, len(object))
	for key, value := range object {
		rest[key] = value
	}
	for _, key := range keys {
		delete(rest, key)
	}
	return rest
}

// itself marks, among the fields of a value, that the value itself is owned.
const itself = "."

// walk compares one value of the configuration with the live one and with the
// fields that are owned below it (the format is described at
// k8s.io/apimachinery/pkg/apis/meta/v1.FieldsV1): "f:NAME" is a field,
// "k:KEYS" an item of a list by its keys, "v:VALUE" an item of a set. A doubt
// begins with the path below the value: most have none, and need no path.
func walk(desired, live any, owned map[string]any) (bool, string) {
	children := len(owned)
	if _, ok := owned[itself]; ok {
		children--
	}
	if children == 0 { // a leaf: all of it is owned, whatever it is
		if !equal(desired, live) {
			return false, " has another value"
		}
		return true, ""
	}
	switch desired := desired.(type) {
	case map[string]any:
		live, ok := live.(map[string]any)
		if !ok {
			return false, " is of another type"
		}
		return walkFields(desired, live, owned, children)
	case []any:
		live, ok := live.([]any)
		if !ok {
			return false, " is of another type"
		}
		return walkItems(desired, live, owned, children)
	default:
		return false, " is of another type"
	}
}

func walkFields(desired, live, owned map[string]any, children int) (bool, string) {
	for name, value := range desired {
		below, ok := owned["f:"+name].(map[string]any)
		if !ok {
			return false, "." + name + " is not owned"
		}
		current, ok := live[name]
		if !ok {
			return false, "." + name + " is missing"
		}
		if ok, doubt := walk(value, current, below); !ok {
			return false, "." + name + doubt
		}
	}
	if children != len(desired) {
		return false, " has fields that are no longer wanted"
	}
	return true, ""
}

// walkItems compares lists whose items are owned one by one. The server puts
// the items of an applied list in the applied order, so they have to be in it.
func walkItems(desired, live []any, owned map[string]any, children int) (bool, string) {
	if children != len(desired) {
		return false, " has items that are no longer wanted, or lacks some"
	}
	matched := make([]bool, len(desired))
	position := make([]int, len(desired))
	for entry, below := range owned {
		if entry == itself {
			continue
		}
		matches, err := matcher(entry)
		if err != nil {
			return false, ": " + err.Error()
		}
		wanted, current := only(desired, matches), only(live, matches)
		if wanted < 0 || current < 0 || matched[wanted] {
			return false, " does not have exactly one item " + entry
		}
		below, ok := below.(map[string]any)
		if !ok {
			return false, ": managedFields cannot be read"
		}
		if ok, doubt := walk(desired[wanted], live[current], below); !ok {
			return false, "[" + entry[2:] + "]" + doubt
		}
		matched[wanted], position[wanted] = true, current
	}
	for i := 1; i < len(position); i++ {
		if position[i] < position[i-1] {
			return false, " is in another order"
		}
	}
	return true, ""
}

// matcher returns the test for the items that an entry of managedFields means.
func matcher(entry string) (func(item any) bool, error) {
	kind, encoded, _ := strings.Cut(entry, ":")
	var value any
	if err := utiljson.Unmarshal([]byte(encoded), &value); err != nil {
		return nil, fmt.Errorf("managedFields cannot be read: %w", err)
	}
	switch keys, isObject := value.(map[string]any); {
	case kind == "v":
		return func(item any) bool { return equal(item, value) }, nil
	case kind == "k" && isObject:
		return func(item any) bool {
			object, ok := item.(map[string]any)
			for key, value := range keys {
				ok = ok && equal(object[key], value)
			}
			return ok
		}, nil
	}
	return nil, fmt.Errorf("items %q are of an unknown kind", entry)
}

// only is the index of the one item that matches, or -1.
func only(items []any, matches func(any) bool) int {
	found := -1
	for i, item := range items {
		if !matches(item) {
			continue
		}
		if found >= 0 {
			return -1
		}
		found = i
	}
	return found
}

// equal compares two values as JSON has them. A number may have come as an
// integer here and as a float there.
func equal(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for key, value := range a {
			other, ok := b[key]
			if !ok || !equal(value, other) {
				return false
			}
		}
		return true
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !equal(a[i], b[i]) {
				return false
			}
		}
		return true
	case string, bool, nil:
		return a == b
	default:
		return sameNumber(a, b)
	}
}

// sameNumber compares numbers by the JSON they make: 1 and 1.0 are the same.
func sameNumber(a, b any) bool {
	switch b.(type) {
	case string, bool, nil, map[string]any, []any:
		return false
	}
	if a == b {
		return true
	}
	left, err := json.Marshal(a)
	right, err2 := json.Marshal(b)
	return err == nil && err2 == nil && bytes.Equal(left, right)
}
