package sandbox

import (
	"fmt"
	"regexp"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/render"
)

var (
	gateOpened = regexp.MustCompile(`^egress is enforced; it was open for ([0-9]+) ms$`)
	gateClosed = regexp.MustCompile(`^(K8S_[A-Z_]+): (.*)$`)
)

// GateOpened is what the gate of a pod leaves word of when it lets the pod go
// on: how long the pod could reach what it must not.
func GateOpened(open time.Duration) string {
	return fmt.Sprintf("egress is enforced; it was open for %d ms", open.Milliseconds())
}

// GateWord is the word that a gate among the containers has left of how it
// ended last: for how long egress was open, or why it gave up.
func GateWord(statuses []corev1.ContainerStatus) (window time.Duration, code failure.Code, message string, ok bool) {
	for _, status := range statuses {
		for _, ended := range []*corev1.ContainerStateTerminated{status.State.Terminated, status.LastTerminationState.Terminated} {
			if status.Name != render.GateName || ended == nil {
				continue
			}
			if match := gateOpened.FindStringSubmatch(ended.Message); match != nil && ended.ExitCode == 0 {
				ms, err := strconv.Atoi(match[1])
				return time.Duration(ms) * time.Millisecond, "", "", err == nil
			}
			if match := gateClosed.FindStringSubmatch(ended.Message); match != nil && ended.ExitCode != 0 {
				return 0, failure.Code(match[1]), match[2], true
			}
		}
	}
	return 0, "", "", false
}

// closedGate says why a pod's gate does not let it go on, once it has given up.
func closedGate(status corev1.ContainerStatus) (message string, code failure.Code) {
	_, code, message, _ = GateWord([]corev1.ContainerStatus{status})
	return message, code
}
