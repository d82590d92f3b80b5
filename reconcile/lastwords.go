package reconcile

import (
	"context"
	"strings"
	"time"
	"unicode"

	corev1 "k8s.io/api/core/v1"
)

const (
	// lastWordsTimeout bounds the wait for a log: it only adds to a failure.
	lastWordsTimeout = 5 * time.Second
	// lastWordsBytes and lastWordsLength are how much of it is read and kept.
	lastWordsBytes  = "4096"
	lastWordsLength = 300
)

// lastWords is the last line that the container in a crash loop printed before
// it ended; empty where there is none, or it cannot be had.
func (r *Reconciler) lastWords(ctx context.Context, pod *corev1.Pod) string {
	container := crashLooping(pod)
	if container == "" {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, lastWordsTimeout)
	defer cancel()
	log, err := r.raw.Get().AbsPath("/api/v1/namespaces", pod.Namespace, "pods", pod.Name, "log").
		Param("container", container).Param("previous", "true").
		Param("tailLines", "1").Param("limitBytes", lastWordsBytes).DoRaw(ctx)
	if err != nil {
		return ""
	}
	return tame(string(log))
}

// crashLooping is the container that is in a crash loop; empty when none is.
func crashLooping(pod *corev1.Pod) string {
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for _, status := range statuses {
			if status.State.Waiting != nil && status.State.Waiting.Reason == "CrashLoopBackOff" {
				return status.Name
			}
		}
	}
	return ""
}

// tame makes one short line of what a sandbox has printed: it is a stranger's,
// and must not move a terminal's cursor or fill its screen.
func tame(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n':
			return ' '
		case !unicode.IsPrint(r) || r == unicode.ReplacementChar:
			return -1
		}
		return r
	}, strings.TrimSpace(text))
	runes := []rune(strings.TrimSpace(text))
	if len(runes) > lastWordsLength {
		runes = append(runes[:lastWordsLength-1], '…')
	}
	return string(runes)
}
