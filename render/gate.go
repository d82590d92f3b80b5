package render

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/agentpane/sandboxctl/schema"
)

// GateName is the name of the container that a sandbox's pod begins with.
const GateName = "egress-gate"

// HasGate reports whether the fleet's sandboxes begin with a gate: not where the file accepts that what must be blocked
// may not be, and not under Cilium, where there is no gateway to ask.
func HasGate(fleet *schema.Fleet) bool {
	return fleet.Egress.Mode == schema.Gateway && fleet.Egress.Unenforced != schema.Allow && len(fleet.Sandboxes)+len(fleet.Pools) > 0
}

// gate puts a container before all others of a sandbox, which lets the pod go on once what must be blocked is. It comes
// after the file's patches, which cannot take it away.
func (r *renderer) gate(spec *corev1.PodSpec) {
	if !HasGate(r.fleet) {
		return
	}
	gate := corev1.Container{
		Name:            GateName,
		Image:           r.gatewayImage(),
		ImagePullPolicy: corev1.PullIfNotPresent,
		// It finds the gateway where the pod's DNS is.
		Args:            []string{GateName, fmt.Sprintf("--hello=%d", HelloPort), fmt.Sprintf("--canary=%d", CanaryPort)},
		Resources:       r.ownResources("10m", "16Mi", "200m", "64Mi"),
		SecurityContext: hardened(),
	}
	spec.InitContainers = append([]corev1.Container{gate}, spec.InitContainers...)
}
