package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/session"
	"github.com/agentpane/sandboxctl/render"
)

// ActivityManager is the field manager of the annotation that says when a
// sandbox was last used: another than that of what is applied.
const ActivityManager = "sandboxctl-activity"

const (
	// noteInterval is how often it is noted at most that a sandbox is in use,
	// noteTimeout how long that may take.
	noteInterval = time.Minute
	noteTimeout  = 5 * time.Second
)

// Noting returns a client which notes on a pod that somebody uses it, for as
// long as a command of Exec or Output runs there. That is for sandboxes that
// stop when they are idle; of others nothing is noted.
func (c *Client) Noting(now func() time.Time) *Client {
	noting := *c
	noting.now = now
	return &noting
}

// inUse notes that the sandbox is in use, now and again until the end, which
// waits for it. That it cannot be noted, as whoever may run commands may not
// change pods, keeps no command from running.
func (c *Client) inUse(ctx context.Context, pod *corev1.Pod) (end func()) {
	declared, ok := c.fleet.Sandbox(pod.Labels[render.SandboxIDLabel])
	if c.now == nil || !ok || declared.Idle.After.Duration <= 0 {
		return func() {}
	}
	interval := min(noteInterval, declared.Idle.After.Duration/2)
	noted, _ := time.Parse(time.RFC3339, pod.Annotations[render.ActivityAnnotation])
	ctx, cancel := context.WithCancel(ctx)
	over := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			if now := c.now(); now.Sub(noted) >= interval {
				if c.noteActivity(ctx, pod, now) == nil {
					noted = now
				}
			}
			select {
			case <-over:
				return
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	})
	return func() {
		close(over)
		running.Wait()
		cancel()
	}
}

// noteActivity notes on the pod that it is used.
func (c *Client) noteActivity(ctx context.Context, pod *corev1.Pod, at time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, noteTimeout)
	defer cancel()
	body, err := Note(pod.UID, render.ActivityAnnotation, at.UTC().Format(time.RFC3339))
	if err != nil {
		return err
	}
	return c.core.Patch(types.MergePatchType).Namespace(pod.Namespace).Resource("pods").Name(pod.Name).
		Param("fieldManager", ActivityManager).Body(body).Do(ctx).Error()
}

// Note is the merge patch that writes an annotation to the object of that uid, and
// to no other that has its name by now; nil takes the annotation away.
func Note(uid types.UID, annotation string, value any) ([]byte, error) {
	return json.Marshal(map[string]any{"metadata": map[string]any{"uid": uid, "annotations": map[string]any{annotation: value}}})
}

// Activity reads by one exec when something last happened in the sandbox's tmux
// sessions: now, while a client shows one that Exec did not start with a Mark. It
// is zero where there is none, or no tmux.
func (c *Client) Activity(ctx context.Context, pod *corev1.Pod, now time.Time) (time.Time, error) {
	output, err := c.output(ctx, pod, Command{Args: session.ActivityCommand(markVariable)}, stateLimit)
	if errors.Is(err, errNoProgram) || output.Code == noProgram {
		return time.Time{}, nil
	}
	if strings.Contains(output.Stderr, "error creating") { // where tmux finds no place for its socket, none runs
		return time.Time{}, nil
	}
	if err == nil {
		err = tmuxError(output, pod)
	}
	if err == nil && output.Truncated {
		err = errors.New("tmux reports more than can be")
	}
	return session.ParseActivity(output.Stdout, now), err
}

// Stopped returns the record of why a sandbox has no pod although it is to run;
// false where there is none. The error is that of asking.
func (c *Client) Stopped(ctx context.Context, name string) (record render.IdleRecord, ok bool, err error) {
	var object corev1.ConfigMap
	about := failure.Object{Kind: "configmap", Namespace: c.fleet.Namespace, Name: render.IdleRecordName(c.fleet, name)}
	err = c.core.Get().Namespace(about.Namespace).Resource("configmaps").Name(about.Name).Do(ctx).Into(&object)
	if found, err := exists(err); !found {
		return render.IdleRecord{}, false, failure.From(err, about)
	}
	record, ok = render.IdleRecordOf(object.Data)
	return record, ok, nil
}

// stopped are the records of all of the fleet's sandboxes that were stopped, by
// the sandboxes' names.
func (c *Client) stopped(ctx context.Context) (map[string]render.IdleRecord, error) {
	var list corev1.ConfigMapList
	selector := render.PartOfLabel + "=" + render.ApplySetID(c.fleet) + "," + render.IdleLabel
	err := c.core.Get().Namespace(c.fleet.Namespace).Resource("configmaps").
		VersionedParams(&metav1.ListOptions{LabelSelector: selector}, c.parameters).Do(ctx).Into(&list)
	records := map[string]render.IdleRecord{}
	for _, object := range list.Items {
		if record, ok := render.IdleRecordOf(object.Data); ok {
			records[object.Labels[render.SandboxIDLabel]] = record
		}
	}
	return records, failure.From(err, failure.Object{Kind: "configmaps", Namespace: c.fleet.Namespace})
}
