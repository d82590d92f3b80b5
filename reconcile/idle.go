package reconcile

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/reconcile/sandbox"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// idle tells which sandboxes are stopped as nobody uses them. It looks by one
// exec each into those of which nothing was heard for long; where there is none,
// it asks nobody.
func (r *Reconciler) idle(ctx context.Context, fleet *schema.Fleet, seen Observation, start []string) (plan.Idle, error) {
	in := plan.IdleInput{Fleet: fleet, Live: seen.Live, Start: start, Now: r.now()}
	answers := map[string]plan.IdleAnswer{}
	if questions := in.Questions(); len(questions) > 0 {
		client, err := sandbox.New(r.config, fleet)
		if err != nil {
			return plan.Idle{}, err
		}
		var mutex sync.Mutex // protects answers
		group := new(errgroup.Group)
		group.SetLimit(concurrency)
		for _, question := range questions {
			group.Go(func() error {
				at, err := activityIn(ctx, client, question.Pod, in.Now)
				mutex.Lock()
				defer mutex.Unlock()
				answers[question.Sandbox] = plan.IdleAnswer{At: at, Problem: err}
				return nil
			})
		}
		_ = group.Wait() // an answer holds its own error
	}
	if ctx.Err() != nil {
		return plan.Idle{}, context.Cause(ctx)
	}
	return in.Decide(answers), nil
}

func activityIn(ctx context.Context, client *sandbox.Client, object *unstructured.Unstructured, now time.Time) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, sessionTimeout)
	defer cancel()
	var pod corev1.Pod
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &pod); err != nil {
		return time.Time{}, err
	}
	at, err := client.Activity(ctx, &pod, now)
	return at, inTime(ctx, err, &pod)
}

// stillIdle refuses to stop a sandbox in which something has happened since the
// plan was made, or of which that cannot be told. What has happened is noted on
// the pod: that it is stopped may be written down already, and does not hold then.
func (r *Reconciler) stillIdle(ctx context.Context, change plan.Change) error {
	client, err := sandbox.New(r.config, r.fleet)
	if err != nil {
		return err
	}
	pod, err := r.get(ctx, change.Ref)
	if err != nil || pod == nil {
		return err
	}
	now := r.now()
	at, err := activityIn(ctx, client, pod, now)
	if err != nil || !at.After(change.IdleSince) {
		return err
	}
	if at.After(now) { // what a sandbox says of itself is not to be believed
		at = now
	}
	if err := r.noteActivity(ctx, change.Ref, pod.GetUID(), at); err != nil {
		return err
	}
	return outdated(change)
}

// NoteActivity notes on the pods of the plan's sandboxes that are in use when
// they last were, so that they are not looked into again before it is time.
func (r *Reconciler) NoteActivity(ctx context.Context, p plan.Plan) error {
	var fails []error
	for _, active := range p.Active {
		if active.Problem != nil {
			continue
		}
		err := r.noteActivity(ctx, active.Ref, active.UID, active.At)
		if apierrors.IsNotFound(err) || failure.CodeOf(err) == failure.Conflict { // it has another pod by now
			continue
		}
		fails = append(fails, err)
	}
	return errors.Join(fails...)
}

func (r *Reconciler) noteActivity(ctx context.Context, ref plan.Ref, uid types.UID, at time.Time) error {
	return r.noteOn(ctx, ref, uid, render.ActivityAnnotation, at.UTC().Format(time.RFC3339), sandbox.ActivityManager)
}
