package connection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	kjson "sigs.k8s.io/json"
)

// List returns the objects of a resource that have the labels, those of one
// namespace or, where that is empty, all. It decodes each while the server still
// sends the next, and what one has in common with the one before is there once:
// objects are not to be changed in place. The dynamic client waits for the whole
// answer and then decodes each object twice: of large fleets, that was most of
// what a plan took.
func List(ctx context.Context, client rest.Interface, kind schema.GroupVersionKind, resource, namespace, labelSelector string) ([]unstructured.Unstructured, error) {
	path := []string{"/apis", kind.Group, kind.Version}
	if kind.Group == "" {
		path = []string{"/api", kind.Version}
	}
	if namespace != "" {
		path = append(path, "namespaces", namespace)
	}
	body, err := client.Get().AbsPath(append(path, resource)...).Param("labelSelector", labelSelector).Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	objects, err := decodeItems(body)
	if err != nil {
		return nil, fmt.Errorf("reading the list of %s: %w", resource, err)
	}
	for i := range objects { // a list leaves them out of its items
		objects[i].SetGroupVersionKind(kind)
	}
	return objects, nil
}

// decodeItems reads a list, and returns its items.
func decodeItems(list io.Reader) (items []unstructured.Unstructured, err error) {
	decoder := kjson.NewDecoderCaseSensitivePreserveInts(list)
	if err := begin(decoder, '{'); err != nil {
		return nil, err
	}
	found := false
	for decoder.More() {
		key, err := decoder.Token()
		if err == nil && key == "items" {
			found = true
			items, err = decodeArray(decoder)
		} else if err == nil {
			err = decoder.Decode(new(json.RawMessage)) // passes over it
		}
		if err != nil {
			return nil, err
		}
	}
	if _, err := decoder.Token(); err != nil { // the end, without which it is not whole
		return nil, err
	}
	if !found {
		return nil, errors.New("it has no items")
	}
	return items, nil
}

// decodeArray reads an array of objects.
func decodeArray(decoder kjson.Decoder) (items []unstructured.Unstructured, err error) {
	if err := begin(decoder, '['); err != nil {
		return nil, err
	}
	var before map[string]any
	for decoder.More() {
		var item map[string]any
		if err := decoder.Decode(&item); err != nil {
			return nil, err
		}
		shareMap(before, item)
		items, before = append(items, unstructured.Unstructured{Object: item}), item
	}
	_, err = decoder.Token() // its end
	return items, err
}

// begin reads what an object or an array begins with.
func begin(decoder kjson.Decoder, delimiter json.Delim) error {
	token, err := decoder.Token()
	if err == nil && token != delimiter {
		err = fmt.Errorf("it has %v where %s is expected", token, delimiter)
	}
	return err
}

// share returns before where the values are equal; else value, in which what is
// equal is that of before.
func share(before, value any) (shared any, equal bool) {
	switch value := value.(type) {
	case map[string]any:
		if before, ok := before.(map[string]any); ok && shareMap(before, value) {
			return before, true
		}
	case []any:
		if before, ok := before.([]any); ok && shareSlice(before, value) {
			return before, true
		}
	default: // of the types that JSON decodes to, the others can be compared
		return value, before == value
	}
	return value, false
}

func shareMap(before, value map[string]any) (equal bool) {
	equal = len(before) == len(value)
	for name, item := range value {
		known, ok := before[name]
		shared, same := share(known, item)
		if value[name] = shared; !ok || !same {
			equal = false
		}
	}
	return equal
}

func shareSlice(before, value []any) (equal bool) {
	equal = len(before) == len(value)
	for i := range min(len(before), len(value)) {
		shared, same := share(before[i], value[i])
		value[i], equal = shared, equal && same
	}
	return equal
}
