package sandbox

import (
	"context"
	"errors"
	"io"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/render"
)

// LogOptions are what there is to choose about logs.
type LogOptions struct {
	Follow, Timestamps bool
	// Previous is the log of the container before its last restart.
	Previous bool
	// Tail is how many of the last lines to begin with; nil is all.
	Tail *int64
}

// Logs writes what the container of a sandbox's pod has printed. It is written
// as it is, control sequences too.
func (c *Client) Logs(ctx context.Context, pod *corev1.Pod, options LogOptions, out io.Writer) error {
	if options.Previous && restarts(pod) == 0 {
		return failure.New(failure.PodNotRunning, about(pod), "the container of %s has not been restarted: it has no previous log", about(pod)).
			WithHint("Leave out --previous.")
	}
	stream, err := c.core.Get().Namespace(pod.Namespace).Resource("pods").Name(pod.Name).SubResource("log").
		VersionedParams(&corev1.PodLogOptions{
			Container: render.ContainerName, Follow: options.Follow, Previous: options.Previous,
			Timestamps: options.Timestamps, TailLines: options.Tail,
		}, c.parameters).Stream(ctx)
	if apierrors.IsBadRequest(err) { // the container has not started, or its log has gone
		reason, _ := NotReady(pod)
		if reason == "" {
			reason = err.Error()
		}
		return failure.New(failure.PodNotRunning, about(pod), "there is no log of %s: %s", about(pod), reason).
			Because(err).With("podName", pod.Name).With("currentPhase", pod.Status.Phase)
	}
	if err != nil {
		return failure.From(err, about(pod))
	}
	defer stream.Close()
	tracked := &trackedWriter{Writer: out}
	_, err = io.Copy(tracked, stream)
	if err == nil || tracked.err != nil || ctx.Err() != nil {
		return errors.Join(ctx.Err(), tracked.err)
	}
	return failure.New(failure.ExecConnectionFailed, about(pod), "the log of %s broke off: %v", about(pod), err).
		Because(err).With("podName", pod.Name)
}

func restarts(pod *corev1.Pod) int32 {
	for _, status := range pod.Status.ContainerStatuses {
		if status.Name == render.ContainerName {
			return status.RestartCount
		}
	}
	return 0
}

// trackedWriter tells an error of its writer from one of the reader.
type trackedWriter struct {
	io.Writer
	err error
}

func (w *trackedWriter) Write(content []byte) (int, error) {
	n, err := w.Writer.Write(content)
	w.err = err
	return n, err
}
