package render

import (
	"encoding/json"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// EnvOf returns the variables that a sandbox has beyond those that its pod was started with, out of the annotations of
// that pod: a warm pod that was adopted cannot be given others. Whoever starts something in it adds them. What is no
// variable is left out.
func EnvOf(annotations map[string]string) map[string]string {
	text := annotations[EnvAnnotation]
	if text == "" {
		return nil
	}
	var env map[string]string
	if err := json.Unmarshal([]byte(text), &env); err != nil {
		return nil // somebody has written into it
	}
	for name, value := range env {
		if len(validation.IsCIdentifier(name)) > 0 || strings.ContainsRune(value, 0) {
			delete(env, name)
		}
	}
	return env
}
