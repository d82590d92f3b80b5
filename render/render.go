// Package render turns a fleet into the Kubernetes objects that it stands for.
//
// [Objects] is a pure function: equal fleets give equal objects in equal order, with values in the form in which the API
// server returns them, so that what is applied can be compared with what is stored. The package never talks to a
// cluster, reads no file, clock or environment, and knows nothing of what a cluster holds already.
package render

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"

	"github.com/agentpane/sandboxctl/schema"
	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

// Object is an object as it is to be in the cluster.
type Object struct {
	Object *unstructured.Unstructured
	Wave   Wave
	// Path names the entry of the file that the object is made from, as "sandboxes.api-refactor", "egress" or "limits".
	Path string
	// Security is what Pod Security admission says to a pod; nil for anything else.
	Security *Verdict
	// Adopted is, for the pod of a sandbox with a pool, what it is on a warm pod of that pool, without that pod's name;
	// nil for anything else.
	Adopted *unstructured.Unstructured
	// Cold is, for a sandbox that is on a warm pod, what it is on a pod of its own; Volume, for one that may adopt a warm
	// pod, the claim that it needs where it does not. Whoever knows the cluster sets them: see plan.Rebase.
	Cold, Volume *unstructured.Unstructured
}

// Position returns where the file has the object's entry.
func (o Object) Position(fleet *schema.Fleet) diagnostic.Range {
	var path []any
	for step := range strings.SplitSeq(o.Path, ".") { // names are DNS labels: no step has a dot
		path = append(path, step)
	}
	return position(fleet, path)
}

// Objects returns what the fleet consists of in the cluster, in the order in which it is to be applied, and what is
// wrong with it. When the list has errors, the objects are good for looking at, not for applying.
func Objects(fleet *schema.Fleet) ([]Object, diagnostic.List) {
	r := newRenderer(fleet)
	r.all()
	slices.SortStableFunc(r.objects, func(a, b Object) int {
		return cmp.Or(
			cmp.Compare(a.Wave, b.Wave),
			strings.Compare(a.Object.GetKind(), b.Object.GetKind()),
			strings.Compare(a.Object.GetName(), b.Object.GetName()),
		)
	})
	return r.objects, r.found
}

// Check returns how many objects the fleet consists of, and what is wrong with it, as Objects does. It takes half the
// time and memory, as it makes none of the objects that a fleet has by the thousand.
func Check(fleet *schema.Fleet) (objects int, found diagnostic.List) {
	r := newRenderer(fleet)
	r.checking = true
	r.all()
	return r.checked + len(r.objects), r.found
}

// YAML returns the objects as a stream of YAML documents.
func YAML(objects []Object) ([]byte, error) {
	var stream []byte
	for i, object := range objects {
		document, err := yaml.Marshal(object.Object.Object)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			stream = append(stream, "---\n"...)
		}
		stream = append(stream, document...)
	}
	return stream, nil
}

// renderer renders one fleet, once.
type renderer struct {
	fleet     *schema.Fleet
	setID     string
	evaluator policy.Evaluator
	version   api.Version     // of the Pod Security Standards
	policies  map[string]bool // the allowlists that were rendered, by their ids
	gateway   *gateway        // nil in a fleet that needs none
	objects   []Object
	reported  map[[2]string]bool // findings, by path and text
	found     diagnostic.List
	fitting   map[string]bool    // whether a pod patch can be laid over a pod, by its path
	parts     map[string]podPart // by template

	checking bool // only what is wrong is wanted: pods and volumes are counted, in checked, and not made
	checked  int
}

func newRenderer(fleet *schema.Fleet) *renderer {
	return &renderer{
		fleet: fleet, setID: ApplySetID(fleet),
		policies: make(map[string]bool), reported: make(map[[2]string]bool), fitting: make(map[string]bool),
		parts: make(map[string]podPart),
	}
}

func (r *renderer) all() {
	if err := r.render(); err != nil { // our own files or the library's checks contradict themselves
		r.report("The fleet cannot be rendered", err.Error())
	}
}

// prepare sets up the checks of Pod Security.
func (r *renderer) prepare() (err error) {
	if r.evaluator, err = policy.NewEvaluator(policy.DefaultChecks(), nil); err != nil {
		return err
	}
	r.gateway = r.newGateway()
	r.checkCilium()
	r.version, err = api.ParseVersion(PodSecurityVersion)
	return err
}

func (r *renderer) render() error {
	if err := r.prepare(); err != nil {
		return err
	}
	if r.gateway != nil {
		r.gateway.learn(r)
	}
	if err := r.base(); err != nil {
		return err
	}
	r.quota()
	for _, p := range r.fleet.Pools {
		if s, ok := r.member(p); ok {
			r.allowlist(s) // that of whoever claims a pod: it stands before
			r.pool(p)
		}
	}
	for i := range r.fleet.Sandboxes {
		s := &r.fleet.Sandboxes[i]
		r.workspace(s)
		r.allowlist(s)
		r.pod(s)
	}
	return r.renderGateway()
}

// add adds an object, completed.
func (r *renderer) add(object *unstructured.Unstructured, path string) *Object {
	r.complete(object)
	r.objects = append(r.objects, Object{Object: object, Wave: WaveOf(object.GroupVersionKind()), Path: path})
	return &r.objects[len(r.objects)-1]
}

// complete gives an object what is the same for all objects of the fleet.
func (r *renderer) complete(object *unstructured.Unstructured) {
	labels := object.GetLabels()
	if labels == nil {
		labels = make(map[string]string)
	}
	maps.Copy(labels, r.ownership())
	object.SetLabels(labels)
	if KindOf(object.GroupVersionKind()).Namespaced {
		object.SetNamespace(r.fleet.Namespace)
	}
}

// report adds a finding, unless it is there: sandboxes have many from the same template.
func (r *renderer) report(summary, detail string, path ...any) *diagnostic.Diagnostic {
	d := diagnostic.Diagnostic{
		Summary: summary, Detail: detail, Path: diagnostic.Path(path...), Subject: position(r.fleet, path),
	}
	if key := [2]string{d.Path, summary + detail}; !r.reported[key] {
		r.reported[key] = true
		r.found = append(r.found, d)
		return &r.found[len(r.found)-1]
	}
	return &d
}

// position returns where the fleet's file, if it has one, says what the path leads to.
func position(fleet *schema.Fleet, path []any) diagnostic.Range {
	if fleet.File() == nil {
		return diagnostic.Range{}
	}
	return fleet.Position(path...)
}
