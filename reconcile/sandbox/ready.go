package sandbox

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/pool"
)

// NotReady says why a pod is not ready, in the pod's own words; empty for a pod
// that is. The code is empty while the pod may still become ready by itself,
// but for InsufficientResources, which a cluster may get over.
func NotReady(pod *corev1.Pod) (reason string, code failure.Code) {
	if pod.DeletionTimestamp != nil {
		return "it is being deleted", failure.PodNotRunning
	}
	if pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded {
		return joined(string(pod.Status.Phase)+" "+pod.Status.Reason, pod.Status.Message), failure.PodNotRunning
	}
	for _, status := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		if message, code := closedGate(status); code != "" {
			return message, code
		}
		waiting := status.State.Waiting
		if waiting == nil {
			continue
		}
		if message, code := hopeless(status); code != "" {
			return joined(waiting.Reason, message), code
		}
		reason = joined(waiting.Reason, waiting.Message)
	}
	for _, condition := range pod.Status.Conditions {
		switch {
		case condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue:
			return "", ""
		case condition.Type == corev1.PodScheduled && condition.Reason == corev1.PodReasonUnschedulable:
			reason = joined(condition.Reason, condition.Message)
			if pool.VolumeIsMissing(condition.Message) {
				return reason, ""
			}
			return reason, failure.InsufficientResources
		}
	}
	if reason == "" {
		reason = "it is starting"
	}
	return reason, ""
}

// hopeless tells whether a container waits for something that does not come by
// itself. A first failure to pull an image (ErrImagePull) may be a hiccup.
func hopeless(status corev1.ContainerStatus) (message string, code failure.Code) {
	waiting := status.State.Waiting
	switch waiting.Reason {
	case "CrashLoopBackOff":
		message = waiting.Message
		if last := status.LastTerminationState.Terminated; last != nil {
			message = fmt.Sprintf("its container ended with exit code %d; %s", last.ExitCode, strings.TrimSpace(last.Message))
		}
		return message, failure.PodNotRunning
	case "ImagePullBackOff":
		return waiting.Message, failure.ImagePullBackOff
	case "InvalidImageName", "ErrImageNeverPull":
		return waiting.Message, failure.ImagePullFailed
	case "CreateContainerConfigError", "CreateContainerError", "RunContainerError":
		return waiting.Message, failure.PodNotRunning
	}
	return "", ""
}

func joined(reason, message string) string {
	reason, message = strings.TrimSpace(reason), strings.TrimSpace(message)
	if message == "" {
		return reason
	}
	return reason + ": " + message
}
