package render

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	strictjson "sigs.k8s.io/json"

	"github.com/agentpane/sandboxctl/schema"
	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

// patched returns the spec with the sandbox's patches laid over it, one after the other, and with the gate before all
// else; false when one of them does not fit, which has been reported.
func (r *renderer) patched(s *schema.Sandbox, spec *corev1.PodSpec) (*corev1.PodSpec, bool) {
	for i, patch := range s.Pod {
		if len(patch) == 0 {
			continue
		}
		at := r.patchPath(s, i)
		if !r.fits(patch, at) {
			return nil, false
		}
		var err error
		if spec, err = merge(spec, patch); err != nil {
			r.unfit(err, at)
			return nil, false
		}
		if !r.whole(spec, at) {
			return nil, false
		}
	}
	complete(spec)
	r.gate(spec)
	return spec, true
}

// whole reports whether the spec still has, after the patch, what a sandbox is not one without.
func (r *renderer) whole(spec *corev1.PodSpec, at []any) bool {
	const byGateway = "By it a pod finds the egress gateway: without it no host is found, and the gate does not open. "
	switch dns := spec.DNSConfig; {
	case !slices.ContainsFunc(spec.Containers, func(c corev1.Container) bool { return c.Name == ContainerName }):
		r.report("The patch takes the container "+diagnostic.Quote(ContainerName)+" away",
			"Commands and terminals run in it. Patch it, or put others beside it.", at...)
	case r.gateway == nil:
		return true
	case spec.DNSPolicy != corev1.DNSNone:
		r.report("The patch takes the gateway's DNS away", byGateway+"Leave dnsPolicy out.", append(at, "dnsPolicy")...)
	case dns == nil || !slices.Equal(dns.Nameservers, []string{UnknownAddress}):
		r.report("The patch takes the gateway's DNS away", byGateway+"Leave nameservers out; searches and options may be added.",
			append(at, "dnsConfig", "nameservers")...)
	default:
		return true
	}
	return false
}

// patchPath returns the entry that the sandbox's i-th patch is from: its template's, if that has one, comes first.
func (r *renderer) patchPath(s *schema.Sandbox, i int) []any {
	if t, ok := r.fleet.Template(s.Template); ok && i < len(t.Pod) {
		return []any{"templates", t.Name, "pod"}
	}
	return []any{"sandboxes", s.Name, "pod"}
}

// culprit returns the entry that made a pod other than it is by itself.
func (r *renderer) culprit(s *schema.Sandbox) []any {
	if len(s.Pod) > 0 {
		return r.patchPath(s, len(s.Pod)-1)
	}
	if s.Name == "" {
		return []any{"pools", s.Pool}
	}
	return []any{"sandboxes", s.Name}
}

// fits reports whether everything in the patch is something that a pod can have. The merge itself takes any field, and
// the server drops or refuses it long after. A template's patch is looked at once, and not for each of its sandboxes.
func (r *renderer) fits(patch map[string]any, at []any) bool {
	path := diagnostic.Path(at...)
	fits, known := r.fitting[path]
	if !known {
		fits = r.isPodSpec(patch, at)
		r.fitting[path] = fits
	}
	return fits
}

func (r *renderer) isPodSpec(patch map[string]any, at []any) bool {
	plain := withoutDirectives(patch)
	unknown, err := asPodSpec(plain)
	if err != nil { // then it has not told of unknown fields
		typed, all := r.typed(plain, at)
		if all {
			r.unfit(err, at)
		}
		unknown, _ = asPodSpec(typed)
	}
	for _, problem := range unknown {
		if field, ok := problem.(strictjson.FieldError); ok {
			r.report("A pod has no field "+field.FieldPath(), "The patch is laid over the spec of a Kubernetes Pod, and has its fields.",
				append(at, steps(field.FieldPath())...)...)
		}
	}
	taken := r.takesGateName(patch, at)
	return err == nil && len(unknown) == 0 && !taken
}

// asPodSpec reads the value as a pod's spec: what it has beyond the fields of one is unknown.
func asPodSpec(value any) (unknown []error, err error) {
	encoded, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	return strictjson.UnmarshalStrict(encoded, new(corev1.PodSpec))
}

// typed returns the value, which the path leads to in a patch, with null for all in it that is of another type than the
// API has there, and whether there is none of that; it has been reported. Each part is looked at by itself: the library
// tells of one, and not of where in a list it is.
func (r *renderer) typed(value any, at []any, path ...any) (typed any, all bool) {
	alone := value
	switch value.(type) {
	case map[string]any:
		alone = map[string]any{}
	case []any:
		alone = []any{}
	}
	if _, err := asPodSpec(within(alone, path)); err != nil {
		r.mistyped(err, append(slices.Clone(at), path...), diagnostic.Path(path...))
		return nil, false
	}
	all = true
	part := func(child any, step any) any {
		typed, ok := r.typed(child, at, append(path[:len(path):len(path)], step)...)
		all = all && ok
		return typed
	}
	switch value := value.(type) {
	case map[string]any:
		value = maps.Clone(value)
		for _, key := range slices.Sorted(maps.Keys(value)) {
			value[key] = part(value[key], key)
		}
		return value, all
	case []any:
		items := make([]any, len(value))
		for i, item := range value {
			items[i] = part(item, i)
		}
		return items, all
	}
	return value, true
}

// within returns the value where the path leads to, with nothing beside it.
func within(value any, path []any) any {
	for _, step := range slices.Backward(path) {
		if key, ok := step.(string); ok {
			value = map[string]any{key: value}
		} else {
			value = []any{value}
		}
	}
	return value
}

func (r *renderer) mistyped(err error, at []any, name string) {
	if mistyped, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		r.report("A pod's "+name+" is no "+mistyped.Value, "The Kubernetes API has a "+mistyped.Type.String()+" there.", at...)
	} else {
		r.unfit(err, at)
	}
}

// takesGateName reports a container of the patch that has the name of the gate, by which that is known while it waits.
func (r *renderer) takesGateName(patch map[string]any, at []any) (taken bool) {
	for _, list := range []string{"containers", "initContainers"} {
		items, _ := patch[list].([]any)
		for i, item := range items {
			if container, _ := item.(map[string]any); container["name"] == GateName {
				r.report("The name "+diagnostic.Quote(GateName)+" is reserved", "It is that of the gate, which is put before all containers of a sandbox. Choose another one.",
					append(at, list, i, "name")...)
				taken = true
			}
		}
	}
	return taken
}

func (r *renderer) unfit(err error, at []any) {
	r.report("The patch cannot be laid over the pod", "Kubernetes says: "+err.Error()+".", at...)
}

// withoutDirectives returns the value without the keys that say how to merge: $patch, $setElementOrder/containers.
func withoutDirectives(value any) any {
	switch value := value.(type) {
	case map[string]any:
		value = maps.Clone(value)
		maps.DeleteFunc(value, func(key string, _ any) bool { return strings.HasPrefix(key, "$") })
		for key, child := range value {
			value[key] = withoutDirectives(child)
		}
		return value
	case []any:
		items := make([]any, len(value))
		for i, item := range value {
			items[i] = withoutDirectives(item)
		}
		return items
	}
	return value
}

// steps returns what containers[0].image leads through.
func steps(path string) []any {
	var steps []any
	for _, step := range strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		if index, err := strconv.Atoi(step); err == nil {
			steps = append(steps, index)
		} else {
			steps = append(steps, step)
		}
	}
	return steps
}

// merge returns the spec with a strategic-merge patch laid over it.
func merge(spec *corev1.PodSpec, patch map[string]any) (*corev1.PodSpec, error) {
	original, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	encoded, err := json.Marshal(patch)
	if err != nil {
		return nil, err
	}
	merged, err := strategicpatch.StrategicMergePatch(original, encoded, corev1.PodSpec{})
	if err != nil {
		return nil, fmt.Errorf("%w. Items of a list are told apart by their names; the sandbox's own container is %q", err, ContainerName)
	}
	result := new(corev1.PodSpec)
	return result, json.Unmarshal(merged, result)
}
