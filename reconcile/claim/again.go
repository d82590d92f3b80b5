package claim

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/render"
)

// differs tells what of a request a sandbox that was claimed before does not
// have. wanted is what a claim of the request would have made, found what is there.
func (r Request) differs(wanted, found *unstructured.Unstructured) []string {
	var all []string
	label := func(name, key string, asked bool) {
		if asked && wanted.GetLabels()[key] != found.GetLabels()[key] {
			all = append(all, name)
		}
	}
	label("pool", render.PoolIDLabel, true)
	label("project", render.ProjectIDLabel, r.Project != "")
	want, have := render.EnvOf(wanted.GetAnnotations()), render.EnvOf(found.GetAnnotations())
	for _, name := range slices.Sorted(maps.Keys(r.Env)) {
		value, own := want[name] // what is not its own is the template's
		other, known := have[name]
		if value != other || own != known {
			all = append(all, "env "+name)
		}
	}
	return all
}
