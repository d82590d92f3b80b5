package render

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// content returns a typed value as the API server would: quantities in canonical form, whole numbers as int64, and
// nothing that is null, or empty without meaning anything by it.
func content(value any) map[string]any {
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(value)
	if err != nil {
		panic(fmt.Sprintf("a type of the API cannot be converted: %v", err)) // all of them can
	}
	prune(object)
	return object
}

// prune removes nulls, and the empty structures that encoding leaves in place of ones that are not set. Others mean
// something: `emptyDir: {}` is a volume.
func prune(value any) {
	switch value := value.(type) {
	case map[string]any:
		for key, child := range value {
			prune(child)
			structure, ok := child.(map[string]any)
			if child == nil || ok && len(structure) == 0 && (key == "resources" || key == "metadata") {
				delete(value, key)
			}
		}
	case []any:
		for _, item := range value {
			prune(item)
		}
	}
}

// complete writes out what the server would add inside of lists and structures that are owned as a whole: with that in
// them they would never be equal to what was sent. It matters only for what pod patches bring.
func complete(spec *corev1.PodSpec) {
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			for j := range containers[i].Ports {
				if port := &containers[i].Ports[j]; port.Protocol == "" {
					port.Protocol = corev1.ProtocolTCP // part of the key by which the list is merged
				}
			}
			for _, env := range containers[i].Env {
				if env.ValueFrom != nil && env.ValueFrom.FieldRef != nil && env.ValueFrom.FieldRef.APIVersion == "" {
					env.ValueFrom.FieldRef.APIVersion = "v1"
				}
			}
		}
	}
	for i := range spec.Volumes {
		if spec.Volumes[i].VolumeSource == (corev1.VolumeSource{}) {
			spec.Volumes[i].EmptyDir = &corev1.EmptyDirVolumeSource{}
		}
	}
	if len(spec.Tolerations) > 0 {
		tolerate(spec, corev1.TaintNodeNotReady)
		tolerate(spec, corev1.TaintNodeUnreachable)
	}
}

// tolerate adds what the admission plugin DefaultTolerationSeconds adds to each pod that does not say it itself.
func tolerate(spec *corev1.PodSpec, taint string) {
	said := slices.ContainsFunc(spec.Tolerations, func(t corev1.Toleration) bool {
		return (t.Key == taint || t.Key == "") && (t.Effect == corev1.TaintEffectNoExecute || t.Effect == "")
	})
	if !said {
		spec.Tolerations = append(spec.Tolerations, corev1.Toleration{
			Key: taint, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute,
			TolerationSeconds: new(int64(300)),
		})
	}
}
