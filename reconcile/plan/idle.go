package plan

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/agentpane/sandboxctl/reconcile/session"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// IdleInput is what is needed to tell which sandboxes are idle.
type IdleInput struct {
	Fleet *schema.Fleet
	// Live is what carries the fleet's label, or the part of it that is planned.
	Live map[Ref]*unstructured.Unstructured
	// Start are sandboxes that somebody asks for: they are not stopped now, and
	// started if they are.
	Start []string
	Now   time.Time
}

// IdleQuestion is a sandbox of which nothing was heard for so long that it would
// be stopped: it must be looked into first.
type IdleQuestion struct {
	Sandbox string
	Pod     *unstructured.Unstructured
}

// IdleAnswer is when something last happened in it, by what is seen there; zero
// where nothing is seen. With a problem nothing is known, and it goes on to run.
type IdleAnswer struct {
	At      time.Time
	Problem error
}

// Activity is a sandbox that turned out not to be idle when it was looked into.
type Activity struct {
	Sandbox string
	Ref     Ref
	UID     types.UID
	// At is when something last happened in it; zero where that is not known.
	At time.Time
	// Next is when it is to be looked into again.
	Next time.Time
	// Problem is why it could not be looked into.
	Problem error
}

// Idle is which sandboxes are stopped as nobody uses them. The zero Idle is that
// of a fleet in which none is.
type Idle struct {
	// Active are those that were about to be, and are in use.
	Active []Activity
	// stopped are the sandboxes that get no pod, records what is written down of
	// those of them that are stopped now.
	stopped map[string]bool
	records []render.Object
	// stays are the records of earlier stops that hold, stops the pods that go.
	stays map[Ref]bool
	stops map[Ref]idleStop
}

type idleStop struct {
	since  time.Time
	reason string
}

// idleRetry is how long a sandbox that could not be looked into is left alone.
const idleRetry = time.Minute

// Questions are the sandboxes that are to be looked into.
func (in IdleInput) Questions() []IdleQuestion {
	var questions []IdleQuestion
	for s, state := range in.states() {
		if state.record == nil && state.due && !slices.Contains(in.Start, s.Name) {
			questions = append(questions, IdleQuestion{s.Name, state.pod})
		}
	}
	return questions
}

// Decide tells which sandboxes are stopped, by the answers to the questions,
// which stand under the sandboxes' names. One without an answer goes on to run.
func (in IdleInput) Decide(answers map[string]IdleAnswer) Idle {
	idle := Idle{stopped: map[string]bool{}, stays: map[Ref]bool{}, stops: map[Ref]idleStop{}}
	for s, state := range in.states() {
		answer, asked := answers[s.Name]
		switch {
		case slices.Contains(in.Start, s.Name):
			if state.pod != nil {
				idle.active(s, state.pod, in.Now)
			}
		case state.record != nil:
			idle.stopped[s.Name], idle.stays[RefOf(state.record)] = true, true
			if state.pod != nil {
				noted, _ := render.ReadIdleRecord(state.record)
				idle.stops[RefOf(state.pod)] = idleStop{later(state.last, noted.Since), "it is idle: stopped"}
			}
		case !asked:
		case answer.Problem != nil:
			idle.Active = append(idle.Active, Activity{
				Sandbox: s.Name, Ref: RefOf(state.pod), UID: state.pod.GetUID(), Next: in.Now.Add(idleRetry), Problem: answer.Problem,
			})
		default:
			last := later(state.last, answer.At)
			if last.After(in.Now) { // what a sandbox says of itself is not to be believed
				last = in.Now
			}
			if in.Now.Sub(last) < s.Idle.After.Duration {
				idle.active(s, state.pod, last)
				continue
			}
			record := render.IdleRecord{Pod: state.pod.GetUID(), Entry: render.EntryHash(s), Since: last}
			idle.stopped[s.Name] = true
			idle.records = append(idle.records, record.Object(in.Fleet, s))
			idle.stops[RefOf(state.pod)] = idleStop{last, "idle for " + duration.HumanDuration(in.Now.Sub(last)) + ": stopped"}
		}
	}
	return idle
}

func (idle *Idle) active(s *schema.Sandbox, pod *unstructured.Unstructured, at time.Time) {
	idle.Active = append(idle.Active, Activity{
		Sandbox: s.Name, Ref: RefOf(pod), UID: pod.GetUID(), At: at, Next: at.Add(s.Idle.After.Duration),
	})
}

// Next is when the first of the sandboxes is to be looked at again; zero when
// none is, as long as nothing changes.
func (in IdleInput) Next(active []Activity) (next time.Time) {
	for s, state := range in.states() {
		if state.record != nil || state.pod == nil || !state.running {
			continue
		}
		at := state.last.Add(s.Idle.After.Duration)
		for _, a := range active {
			if a.Sandbox == s.Name {
				at = later(at, a.Next)
			}
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next
}

// idleState is what the cluster shows of a sandbox that can be idle.
type idleState struct {
	// record is that of a stop that holds; nil where none does.
	record *unstructured.Unstructured
	// pod is the sandbox's; nil where it has none that stays.
	pod     *unstructured.Unstructured
	running bool
	// last is when something last happened in it, as far as the pod says; due:
	// that is long ago.
	last time.Time
	due  bool
}

// states yields the sandboxes that the file wants to be stopped when they are
// idle, with what the cluster shows of them.
func (in IdleInput) states() func(yield func(*schema.Sandbox, idleState) bool) {
	return func(yield func(*schema.Sandbox, idleState) bool) {
		var pods map[string][]*unstructured.Unstructured
		var records map[string]*unstructured.Unstructured
		for i := range in.Fleet.Sandboxes {
			s := &in.Fleet.Sandboxes[i]
			if s.Idle.After.Duration <= 0 || s.State != schema.Running {
				continue
			}
			if pods == nil {
				pods, _ = bySandbox(in.Live)
				records = idleRecords(in.Live)
			}
			if state := in.state(s, pods[s.Name], records[s.Name]); !yield(s, state) {
				return
			}
		}
	}
}

func (in IdleInput) state(s *schema.Sandbox, pods []*unstructured.Unstructured, record *unstructured.Unstructured) (state idleState) {
	stays := func(pod *unstructured.Unstructured) bool { return over(pod) == "" && !leased(pod) }
	if i := slices.IndexFunc(pods, stays); i >= 0 {
		state.pod = pods[i]
		state.running = containerOf(state.pod) != session.Container{}
		state.last = LastActivity(state.pod)
		state.due = state.running && in.Now.Sub(state.last) >= s.Idle.After.Duration
	}
	read, ok := render.IdleRecord{}, false
	if record != nil {
		read, ok = render.ReadIdleRecord(record)
	}
	// Used since it was noted, or started anew: the stop is over.
	started := state.pod != nil && (state.pod.GetUID() != read.Pod || state.last.Truncate(time.Second).After(read.Since))
	if ok && read.Entry == render.EntryHash(s) && !started {
		state.record = record
	}
	return state
}

func idleRecords(live map[Ref]*unstructured.Unstructured) map[string]*unstructured.Unstructured {
	records := map[string]*unstructured.Unstructured{}
	for ref, object := range live {
		if ref.Kind == "ConfigMap" && object.GetDeletionTimestamp() == nil && object.GetLabels()[render.IdleLabel] != "" {
			records[sandboxID(object)] = object
		}
	}
	return records
}

// LastActivity is when something last happened in a sandbox, as far as its pod
// says: it was made, or became a sandbox's, its container started for the first
// time, or somebody used it and that was noted.
func LastActivity(pod *unstructured.Unstructured) time.Time {
	last := pod.GetCreationTimestamp().Time
	annotations := pod.GetAnnotations()
	for _, name := range []string{render.ClaimedAtAnnotation, render.ActivityAnnotation} {
		if at, err := time.Parse(time.RFC3339, annotations[name]); err == nil {
			last = later(last, at)
		}
	}
	statuses, _, _ := unstructured.NestedSlice(pod.Object, "status", "containerStatuses")
	for _, status := range statuses {
		status, _ := status.(map[string]any)
		restarts, _ := status["restartCount"].(int64)
		text, _, _ := unstructured.NestedString(status, "state", "running", "startedAt")
		if at, err := time.Parse(time.RFC3339, text); err == nil && restarts == 0 { // one that crashes is not in use for that
			last = later(last, at)
		}
	}
	return last
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// On is what is wanted of the objects, where the sandboxes that are idle have no
// pods.
func (idle Idle) On(objects []render.Object) []render.Object {
	if len(idle.stopped) == 0 {
		return objects
	}
	objects = slices.DeleteFunc(slices.Clone(objects), func(object render.Object) bool {
		return object.Object.GetKind() == "Pod" && idle.stopped[sandboxID(object.Object)]
	})
	return append(objects, idle.records...)
}

// Idling tells whether the change is part of stopping an idle sandbox.
func (c Change) Idling() bool {
	return !c.IdleSince.IsZero() || c.Action != Delete && c.Labels[render.IdleLabel] != ""
}
