package render_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/agentpane/sandboxctl/render"
)

func TestEnvOf(t *testing.T) {
	for annotation, want := range map[string]map[string]string{
		"":                                nil,
		"no JSON":                         nil,
		`{"B":"2 $x","A":"1"}`:            {"A": "1", "B": "2 $x"},
		`{"-u PATH":"x","":"y","A=B":""}`: nil, // what would be options of env, or no variable
	} {
		got := render.EnvOf(map[string]string{render.EnvAnnotation: annotation})
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%q: -want +got\n%s", annotation, diff)
		}
	}
}
