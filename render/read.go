package render

import (
	"encoding/json"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// IsWarm reports whether labels are those of a pool's pod that is nobody's yet.
func IsWarm(labels map[string]string) bool { return labels[WarmStateLabel] == Warm }

// ImageOf returns the image of the container that a sandbox's commands run in; empty where the pod has none.
func ImageOf(pod *unstructured.Unstructured) string {
	containers, _, _ := unstructured.NestedSlice(pod.Object, "spec", "containers")
	for _, item := range containers {
		if container, ok := item.(map[string]any); ok && container["name"] == ContainerName {
			image, _ := container["image"].(string)
			return image
		}
	}
	return ""
}

// SizeOf returns how much a workspace's claim asks for, as the file says it.
func SizeOf(volume *unstructured.Unstructured) string {
	size, _, _ := unstructured.NestedString(volume.Object, "spec", "resources", "requests", "storage")
	return size
}

// GatewayHosts returns the names of the hosts that a gateway's ConfigMap allows to anybody, in order; false where the
// object is none.
func GatewayHosts(object *unstructured.Unstructured) ([]string, bool) {
	text, found, _ := unstructured.NestedString(object.Object, "data", GatewayConfigKey)
	var config GatewayConfig
	if !found || json.Unmarshal([]byte(text), &config) != nil {
		return nil, false
	}
	hosts := map[string]bool{}
	for _, list := range config.Lists {
		for _, rule := range list.Hosts {
			hosts[rule.Host] = true
		}
	}
	return slices.Sorted(maps.Keys(hosts)), true
}
