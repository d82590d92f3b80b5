package reconcile

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/agentpane/sandboxctl/reconcile/audit"
	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/reconcile/sandbox"
	"github.com/agentpane/sandboxctl/reconcile/session"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// sessionTimeout bounds each look into a sandbox, and each change there. tmux
// answers in milliseconds; the rest is for a slow node.
const sessionTimeout = 30 * time.Second

// desiredSessions are those of the sandboxes that are to have one of these pods.
func desiredSessions(fleet *schema.Fleet, objects []render.Object) []plan.SandboxSessions {
	var all []plan.SandboxSessions
	for _, object := range objects {
		if object.Object.GetKind() != "Pod" {
			continue
		}
		if s, ok := fleet.Sandbox(object.Object.GetLabels()[render.SandboxIDLabel]); ok {
			all = append(all, plan.SandboxSessions{Sandbox: s.Name, Desired: session.Desired{Sessions: s.Sessions}})
		}
	}
	slices.SortFunc(all, func(a, b plan.SandboxSessions) int { return strings.Compare(a.Sandbox, b.Sandbox) })
	return all
}

// planSessions adds to the plan what happens to tmux sessions. It looks into the
// sandboxes of which it is doubtful, by one exec each; where none is, it asks
// nobody.
func (r *Reconciler) planSessions(ctx context.Context, fleet *schema.Fleet, input plan.Input, p *plan.Plan) error {
	answers := map[string]plan.SessionAnswer{}
	if questions := input.SessionQuestions(*p); len(questions) > 0 {
		client, err := sandbox.New(r.config, fleet)
		if err != nil {
			return err
		}
		var mutex sync.Mutex // protects answers
		group := new(errgroup.Group)
		group.SetLimit(concurrency)
		for _, question := range questions {
			group.Go(func() error {
				answer := lookInto(ctx, client, question.Pod)
				mutex.Lock()
				defer mutex.Unlock()
				answers[question.Sandbox] = answer
				return nil
			})
		}
		_ = group.Wait() // an answer holds its own error
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	input.AddSessions(p, answers, r.now())
	return nil
}

func lookInto(ctx context.Context, client *sandbox.Client, object *unstructured.Unstructured) plan.SessionAnswer {
	ctx, cancel := context.WithTimeout(ctx, sessionTimeout)
	defer cancel()
	var pod corev1.Pod
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &pod); err != nil {
		return plan.SessionAnswer{Problem: err}
	}
	state, err := client.Sessions(ctx, &pod)
	return plan.SessionAnswer{State: state, Problem: inTime(ctx, err, &pod)}
}

// inTime says in a code that an exec has taken too long.
func inTime(ctx context.Context, err error, pod *corev1.Pod) error {
	if err == nil || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return err
	}
	return failure.New(failure.ExecTimeout, failure.Object{Kind: "pod", Namespace: pod.Namespace, Name: pod.Name},
		"sandbox %s has not said within %s which sessions it has", pod.Labels[render.SandboxIDLabel], sessionTimeout)
}

// SessionEvent is what has become of a sandbox's sessions.
type SessionEvent struct {
	plan.Sessions
	// Err is why they are not as they should be; nil when they are.
	Err error
}

// SessionResult is what changing sessions came to.
type SessionResult struct {
	// Done are the sandboxes whose sessions were brought to what is wanted, and
	// seen to be so; Left those whose container does not run yet.
	Done, Left []plan.Sessions
}

// ApplySessions does what the plan says of tmux sessions, in all sandboxes at
// once, 16 at a time: one exec changes them, a second one confirms that they
// are as they should be, and the pod is told so. It tells each sandbox to tell,
// which may be called from several goroutines at once. What cannot be done in
// one keeps no other from being done. It is to be called after Apply, when the
// pods are ready; a container that does not run is left.
func (r *Reconciler) ApplySessions(ctx context.Context, fleet *schema.Fleet, p plan.Plan, tell func(SessionEvent)) (result SessionResult, err error) {
	if len(p.Sessions) == 0 {
		return result, nil
	}
	client, err := sandbox.New(r.config, fleet)
	if err != nil {
		return result, err
	}
	pods, err := podsOf(ctx, client, fleet, p.Sessions)
	if err != nil {
		return result, err
	}
	var mutex sync.Mutex // protects result and fails
	var fails []error
	group := new(errgroup.Group)
	group.SetLimit(concurrency)
	for _, sessions := range p.Sessions {
		group.Go(func() error {
			var pod *corev1.Pod
			if found := pods[sessions.Sandbox]; len(found) > 0 && sandbox.Runs(&found[0]) {
				pod = &found[0]
			}
			var err error
			if pod != nil && ctx.Err() == nil {
				err = r.applySessions(ctx, client, sessions, pod)
			}
			mutex.Lock()
			defer mutex.Unlock()
			switch {
			case pod == nil || ctx.Err() != nil:
				if !sessions.Idle() {
					result.Left = append(result.Left, sessions)
				}
				return nil
			case err != nil:
				fails = append(fails, err)
			default:
				result.Done = append(result.Done, sessions)
			}
			tell(SessionEvent{sessions, err})
			return nil
		})
	}
	_ = group.Wait() // its functions return no error: all are to be heard
	slices.SortFunc(fails, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	if ctx.Err() != nil {
		fails = append(fails, context.Cause(ctx))
	}
	return result, errors.Join(fails...)
}

// podsOf are the pods of the sandboxes whose sessions these are: of one alone, as
// watch has it, no others are asked for.
func podsOf(ctx context.Context, client *sandbox.Client, fleet *schema.Fleet, sessions []plan.Sessions) (map[string][]corev1.Pod, error) {
	if len(sessions) > 1 {
		all, err := client.Pods(ctx)
		return sandbox.Of(fleet, all), err
	}
	name := sessions[0].Sandbox
	pod, err := client.Find(ctx, name)
	if failure.CodeOf(err) == failure.PodNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return map[string][]corev1.Pod{name: {*pod}}, nil
}

// applySessions brings the sessions of one sandbox to what is wanted.
func (r *Reconciler) applySessions(ctx context.Context, client *sandbox.Client, s plan.Sessions, pod *corev1.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, 3*sessionTimeout) // a change, a look, and the same again
	defer cancel()
	switch {
	case s.Problem != nil:
		return s.Problem
	case s.Pod != "" && s.UID != pod.UID:
		return sessionsStale(pod)
	}
	seen, changes := s.Seen, len(s.Changes) > 0
	s.Desired = s.Desired.With(render.EnvOf(pod.Annotations))
	if s.Pod == "" || s.Container != sandbox.ContainerOf(pod) {
		// Nothing of what was seen is there any more: a container begins without
		// sessions. If others make them at the same time, the guard tells.
		seen, changes = session.State{}, !s.Desired.Empty()
	}
	if changes {
		if err := r.audit.Ready(); err != nil {
			return err
		}
		err := inTime(ctx, r.changeSessions(ctx, client, s, seen, pod), pod)
		if err = errors.Join(err, r.recordSessions(s, pod, err)); err != nil {
			return err
		}
	}
	if len(s.Blocked) > 0 {
		return SessionBlocked(s, pod.Namespace, s.Blocked[0])
	}
	return r.note(ctx, pod, session.Note{Hash: s.Desired.Hash(), Container: sandbox.ContainerOf(pod)})
}

// recordSessions records the changes, of which nobody knows which were made where
// they have failed.
func (r *Reconciler) recordSessions(s plan.Sessions, pod *corev1.Pod, err error) error {
	about := audit.About{Namespace: pod.Namespace, ResourceName: pod.Name, SandboxID: s.Sandbox, ProjectID: pod.Labels[render.ProjectIDLabel]}
	var errs []error
	for _, change := range s.Changes {
		errs = append(errs, r.audit.SessionChanged(about, string(change.Action), string(change.Kind), change.Name, err))
	}
	return errors.Join(errs...)
}

// changeSessions changes the sessions, and confirms it by a look of its own: a
// connection that broke off says nothing about what was done, and the one who
// was there first may have done it. Where nothing was done at all it tries once
// more.
func (r *Reconciler) changeSessions(ctx context.Context, client *sandbox.Client, s plan.Sessions, seen session.State, pod *corev1.Pod) error {
	for attempt := 1; ; attempt++ {
		options := session.Options{Adopt: s.Adopt, Now: r.now(), Token: session.Token(seen.Token, r.holder, r.now().String())}
		result, err := session.Make(s.Desired, seen, options)
		if err != nil {
			return err
		}
		changeErr := client.ChangeSessions(ctx, pod, result.File)
		now, err := client.Sessions(ctx, pod)
		if err != nil {
			return errors.Join(changeErr, err)
		}
		rest, err := session.Make(s.Desired, now, options)
		switch {
		case err != nil:
			return err
		case rest.Done(s.Blocked):
			return nil
		case changeErr == nil || attempt > 1 || now.Token != seen.Token || failure.CodeOf(changeErr) == failure.PlanStale:
			return notDone(pod, changeErr, rest, s)
		}
	}
}

// notDone is the failure of a change after which all is not as it should be.
func notDone(pod *corev1.Pod, changeErr error, rest session.Result, s plan.Sessions) error {
	for _, blocked := range rest.Blocked {
		if !slices.Contains(s.Blocked, blocked) {
			return SessionBlocked(s, pod.Namespace, blocked)
		}
	}
	if changeErr != nil {
		return changeErr
	}
	what := "they are not as the file says"
	if len(rest.Changes) > 0 {
		what = "not done: " + string(rest.Changes[0].Action) + " " + string(rest.Changes[0].Kind) + " " + rest.Changes[0].Name
	}
	return failure.New(failure.TmuxCreationFailed, failure.Object{Kind: "pod", Namespace: pod.Namespace, Name: pod.Name},
		"the sessions of sandbox %s were changed, and %s", s.Sandbox, what).
		WithHint("Somebody may change them at the same time: apply again.")
}

func sessionsStale(pod *corev1.Pod) error {
	return failure.New(failure.PlanStale, failure.Object{Kind: "pod", Namespace: pod.Namespace, Name: pod.Name},
		"sandbox %s has another pod than when the plan was made", pod.Labels[render.SandboxIDLabel]).WithHint("Plan and apply again.")
}

// SessionBlocked is the failure that a declared session cannot be had.
func SessionBlocked(s plan.Sessions, namespace string, blocked session.Blocked) error {
	return failure.New(failure.TmuxSessionAlreadyExists, failure.Object{Kind: "pod", Namespace: namespace, Name: s.Pod},
		"sandbox %s: %s", s.Sandbox, blocked).With("sessionName", blocked.Session).
		WithHint("Rename it in the file; or end it: sandboxctl session kill %s %s; or take it over as it is: --adopt.", s.Sandbox, blocked.Session)
}

// note tells the pod which sessions were seen in its container.
func (r *Reconciler) note(ctx context.Context, pod *corev1.Pod, note session.Note) error {
	var value any = note.Text()
	if value == pod.Annotations[session.NoteAnnotation] {
		return nil
	}
	if value == "" {
		value = nil
	}
	ref := plan.Ref{GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Pod"), Namespace: pod.Namespace, Name: pod.Name}
	return r.noteOn(ctx, ref, pod.UID, session.NoteAnnotation, value, session.NoteManager)
}

// noteOn notes something down on the very object of that uid, under a field
// manager of its own; nil as the value takes the annotation away.
func (r *Reconciler) noteOn(ctx context.Context, ref plan.Ref, uid types.UID, annotation string, value any, manager string) error {
	body, err := sandbox.Note(uid, annotation, value)
	if err != nil {
		return err
	}
	noted, err := r.resource(ref).Patch(ctx, ref.Name, types.MergePatchType, body, metav1.PatchOptions{FieldManager: manager})
	if err == nil && r.writes != nil {
		r.writes.Wrote(noted)
	}
	return failure.From(err, about(ref))
}
