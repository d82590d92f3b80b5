package plan

import (
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/agentpane/sandboxctl/reconcile/session"
	"github.com/agentpane/sandboxctl/render"
)

// SandboxSessions is what the file says of the tmux sessions of one sandbox
// that is to run.
type SandboxSessions struct {
	Sandbox string
	Desired session.Desired
}

// on is what is wanted in that pod, if there is one yet.
func (s SandboxSessions) on(pod *unstructured.Unstructured) session.Desired {
	if pod == nil {
		return s.Desired
	}
	return s.Desired.With(render.EnvOf(pod.GetAnnotations()))
}

// SessionQuestion is a sandbox that must be looked into, with its running pod.
type SessionQuestion struct {
	Sandbox string
	Pod     *unstructured.Unstructured
}

// SessionAnswer is what was seen there, or why nothing was.
type SessionAnswer struct {
	State   session.State
	Problem error
}

// Sessions is what happens to the tmux sessions of one sandbox.
type Sessions struct {
	Sandbox string
	// Pod is the name of the pod that was looked into, UID its uid and
	// Container the life of its container; all are empty where the sessions are
	// for a container that is yet to start.
	Pod       string
	UID       types.UID
	Container session.Container
	// Desired is what is wanted, Seen what there was.
	Desired session.Desired
	Seen    session.State
	// Changes can be empty: then it is only to be noted down that all is as it
	// should be.
	Changes []session.Change
	// Blocked are the declared sessions that cannot be had, Problem is why
	// nothing can be done at all. Neither keeps anything else from being done.
	Blocked []session.Blocked
	Problem error
	// Adopt: sessions that people made under a declared name are taken over.
	Adopt bool
}

// Idle tells whether nothing would change, and nothing is wrong.
func (s Sessions) Idle() bool { return len(s.Changes)+len(s.Blocked) == 0 && s.Problem == nil }

// SessionPath is the entry of the file that a session stems from; it is the
// sandbox's where there is no session.
func SessionPath(sandbox, name string) string {
	path := "sandboxes." + sandbox
	if name != "" {
		path += ".sessions." + name
	}
	return path
}

// SessionQuestions are the sandboxes that must be looked into: those that stay
// as they are by the plan, and whose pod does not say that its container has
// the wanted sessions.
func (in Input) SessionQuestions(p Plan) []SessionQuestion {
	var questions []SessionQuestion
	pods := in.keptPods(p)
	for _, s := range in.Sessions {
		pod := pods[s.Sandbox]
		s.Desired = s.on(pod)
		if pod == nil || noted(s, pod) && (!in.Full || s.Desired.Empty()) {
			continue
		}
		if containerOf(pod) != (session.Container{}) {
			questions = append(questions, SessionQuestion{s.Sandbox, pod})
		}
	}
	return questions
}

// AddSessions adds to the plan what happens to sessions. The answers stand
// under the names of the sandboxes.
func (in Input) AddSessions(p *Plan, answers map[string]SessionAnswer, now time.Time) {
	pods := in.keptPods(*p)
	for _, s := range in.Sessions {
		pod, answer := pods[s.Sandbox], SessionAnswer{}
		s.Desired = s.on(pod)
		entry := Sessions{Sandbox: s.Sandbox, Desired: s.Desired, Adopt: in.AdoptSessions}
		switch seen, asked := answers[s.Sandbox]; {
		case asked:
			answer = seen
			entry.Pod, entry.UID, entry.Container = pod.GetName(), pod.GetUID(), containerOf(pod)
		case pod != nil && noted(s, pod):
			continue
		case s.Desired.Empty(): // a new container has none anyway
			continue
		}
		entry.Seen, entry.Problem = answer.State, answer.Problem
		if entry.Problem == nil {
			result, err := session.Make(entry.Desired, entry.Seen, session.Options{Adopt: entry.Adopt, Now: now})
			entry.Changes, entry.Blocked, entry.Problem = result.Changes, result.Blocked, err
		}
		if entry.Idle() && (entry.Pod == "" || noted(s, pod)) {
			continue
		}
		p.Sessions = append(p.Sessions, entry)
	}
}

// keptPods are the pods of the sandboxes, by their names, whose container the
// plan leaves running: of several, the one that the plan goes by.
func (in Input) keptPods(p Plan) map[string]*unstructured.Unstructured {
	pods, disrupted := map[string]*unstructured.Unstructured{}, map[Ref]bool{}
	for _, change := range p.Changes {
		if change.Disruption != None {
			disrupted[change.Ref] = true
		}
	}
	for ref, live := range in.Live {
		if live.GetKind() != "Pod" || live.GetLabels()[render.SandboxLabel] != "true" || over(live) != "" || disrupted[ref] {
			continue
		}
		name := live.GetLabels()[render.SandboxIDLabel]
		if known := pods[name]; known == nil || stayingFirst(live, known) < 0 {
			pods[name] = live
		}
	}
	return pods
}

// noted tells whether the pod says of its container that it has the wanted
// sessions.
func noted(s SandboxSessions, pod *unstructured.Unstructured) bool {
	value := pod.GetAnnotations()[session.NoteAnnotation]
	if value == "" && s.Desired.Empty() {
		return true
	}
	return value == session.Note{Hash: s.Desired.Hash(), Container: containerOf(pod)}.Text()
}

// containerOf is the life of the pod's container; zero where it does not run.
func containerOf(pod *unstructured.Unstructured) session.Container {
	statuses, _, _ := unstructured.NestedSlice(pod.Object, "status", "containerStatuses")
	for _, status := range statuses {
		status, _ := status.(map[string]any)
		if status["name"] != render.ContainerName {
			continue
		}
		if _, running, _ := unstructured.NestedMap(status, "state", "running"); !running {
			return session.Container{}
		}
		id, _ := status["containerID"].(string)
		restarts, _ := status["restartCount"].(int64)
		return session.Container{ID: id, Restarts: restarts}
	}
	return session.Container{}
}

// SessionChanges is the number of changes of sessions.
func (p Plan) SessionChanges(action session.Action) (n int) {
	for _, s := range p.Sessions {
		for _, change := range s.Changes {
			if change.Action == action {
				n++
			}
		}
	}
	return n
}
