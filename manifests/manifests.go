// Package manifests holds the objects that every fleet has, as YAML that stands by itself: `kubectl apply -f manifests/`
// takes it. The numbers in the files' names are the order that kubectl applies them in.
//
// Package render makes a fleet's own objects out of these. The package never changes them and knows nothing of fleets.
package manifests

import (
	"embed"
	"fmt"
	"io/fs"
	"regexp"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

//go:embed *.yaml
var files embed.FS

// Objects returns the objects, in the order of the files; the caller may change them.
func Objects() ([]*unstructured.Unstructured, error) {
	names, err := fs.Glob(files, "*.yaml") // sorted
	if err != nil {
		return nil, err
	}
	separator := regexp.MustCompile(`(?m)^---\n`)
	var objects []*unstructured.Unstructured
	for _, name := range names {
		content, err := files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		for _, document := range separator.Split(string(content), -1) {
			object := &unstructured.Unstructured{}
			json, err := yaml.YAMLToJSONStrict([]byte(document))
			if err == nil {
				err = object.UnmarshalJSON(json)
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			objects = append(objects, object)
		}
	}
	return objects, nil
}
