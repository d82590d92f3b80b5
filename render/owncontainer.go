package render

import (
	"cmp"
	"regexp"
	"runtime/debug"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// gatewayImage is what the gateway and the gate run.
func (r *renderer) gatewayImage() string { return cmp.Or(r.fleet.Egress.Image, GatewayImage()) }

// GatewayImage returns the image of this program: of this very version, where this is a release.
func GatewayImage() string {
	tag := "dev"
	if build, ok := debug.ReadBuildInfo(); ok && regexp.MustCompile(`^v\d+\.\d+\.\d+$`).MatchString(build.Main.Version) {
		tag = build.Main.Version
	}
	return "docker.io/agentpane/sandboxctl:" + tag
}

// ownResources returns requests and limits of a container of ours, within the bounds that the file sets to all.
func (r *renderer) ownResources(cpu, memory, cpuLimit, memoryLimit string) corev1.ResourceRequirements {
	within := func(text string, least, most resource.Quantity) resource.Quantity {
		q := resource.MustParse(text)
		if !least.IsZero() && q.Cmp(least) < 0 {
			q = least
		}
		if !most.IsZero() && q.Cmp(most) > 0 {
			q = most
		}
		return q
	}
	l := &r.fleet.Limits
	return corev1.ResourceRequirements{
		Requests: corev1.ResourceList{
			corev1.ResourceCPU: within(cpu, l.Min.CPU, l.Max.CPU), corev1.ResourceMemory: within(memory, l.Min.Memory, l.Max.Memory),
		},
		Limits: corev1.ResourceList{
			corev1.ResourceCPU: within(cpuLimit, l.Min.CPU, l.Max.CPU), corev1.ResourceMemory: within(memoryLimit, l.Min.Memory, l.Max.Memory),
		},
	}
}

func hardened() *corev1.SecurityContext {
	return &corev1.SecurityContext{
		AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
		Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
}
