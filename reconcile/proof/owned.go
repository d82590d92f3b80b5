package proof

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Owned is the part of live that manager has applied: what an apply would
// change is the difference between it and the new configuration. It is nil
// where the manager has not applied live, or managedFields cannot be read.
func Owned(live *unstructured.Unstructured, manager string) map[string]any {
	fields, doubt := ownedFields(live, manager, live.GetAPIVersion())
	if doubt != "" {
		return nil
	}
	owned, _ := extract(live.Object, fields).(map[string]any)
	return owned
}

// extract is the part of a value that the fields speak of.
func extract(live any, owned map[string]any) any {
	if len(owned) == 0 {
		return live
	}
	switch live := live.(type) {
	case map[string]any:
		part := map[string]any{}
		for name, value := range live {
			if below, ok := owned["f:"+name].(map[string]any); ok {
				part[name] = extract(value, below)
			}
		}
		return part
	case []any:
		var part []any
		for _, item := range live {
			for entry, below := range owned {
				below, ok := below.(map[string]any)
				if matches, err := matcher(entry); ok && entry != itself && err == nil && matches(item) {
					part = append(part, extract(item, below))
				}
			}
		}
		return part
	default:
		return live
	}
}
