package plan

import (
	"encoding/json"
	"errors"

	"k8s.io/apimachinery/pkg/types"

	"github.com/agentpane/sandboxctl/reconcile/session"
)

// DocumentSession is a change of a sandbox's sessions, or, with Problem, one
// that cannot be made.
type DocumentSession struct {
	Sandbox string `json:"sandbox"`
	session.Change
	Path    string `json:"path"`
	Problem string `json:"problem,omitempty"`
}

// documentSessionWork is a Sessions, without what follows from the rest of it.
type documentSessionWork struct {
	Sandbox   string            `json:"sandbox"`
	Pod       string            `json:"pod,omitempty"`
	UID       types.UID         `json:"uid,omitempty"`
	Container session.Container `json:"container,omitzero"`
	Desired   session.Desired   `json:"desired"`
	Seen      session.State     `json:"seen,omitzero"`
	Changes   []session.Change  `json:"changes,omitempty"`
	Adopt     bool              `json:"adopt,omitempty"`
}

func (p Plan) documentSessions() []DocumentSession {
	documents := []DocumentSession{}
	for _, s := range p.Sessions {
		for _, change := range s.Changes {
			documents = append(documents, DocumentSession{Sandbox: s.Sandbox, Change: change, Path: s.PathOf(change)})
		}
		for _, blocked := range s.Blocked {
			documents = append(documents, DocumentSession{
				Sandbox: s.Sandbox, Path: SessionPath(s.Sandbox, blocked.Session), Problem: blocked.Error(),
				Change: session.Change{Action: session.Create, Kind: session.SessionKind, Name: blocked.Session, Session: blocked.Session},
			})
		}
		if s.Problem != nil {
			documents = append(documents, DocumentSession{
				Sandbox: s.Sandbox, Path: SessionPath(s.Sandbox, ""), Problem: s.Problem.Error(),
				Change: session.Change{Action: session.Update, Kind: session.SessionKind},
			})
		}
	}
	return documents
}

// PathOf is the entry of the file that a change of the sandbox's sessions stems
// from: the session, or the sandbox where the file no longer has that.
func (s Sessions) PathOf(change session.Change) string {
	for _, declared := range s.Desired.Sessions {
		if declared.Name == change.Session {
			return SessionPath(s.Sandbox, change.Session)
		}
	}
	return SessionPath(s.Sandbox, "")
}

func (p Plan) sessionSummary() SessionSummary {
	summary := SessionSummary{
		Create: p.SessionChanges(session.Create),
		Update: p.SessionChanges(session.Update) + p.SessionChanges(session.Adopt),
		Delete: p.SessionChanges(session.Delete),
	}
	for _, s := range p.Sessions {
		summary.Blocked += len(s.Blocked)
		if s.Problem != nil {
			summary.Blocked++
		}
	}
	return summary
}

// sessionWork is what a saved plan has of the sessions.
func (p Plan) sessionWork() []documentSessionWork {
	var work []documentSessionWork
	for _, s := range p.Sessions {
		work = append(work, documentSessionWork{s.Sandbox, s.Pod, s.UID, s.Container, s.Desired, s.Seen, s.Changes, s.Adopt})
	}
	return work
}

// openSessions reads the sessions of a saved plan.
func openSessions(content []byte) ([]Sessions, error) {
	var document struct {
		SessionWork []documentSessionWork `json:"sessionWork"`
	}
	if err := json.Unmarshal(content, &document); err != nil {
		return nil, err
	}
	var all []Sessions
	for _, w := range document.SessionWork {
		if w.Sandbox == "" || (w.Pod == "") != (w.Container == session.Container{}) {
			return nil, errors.New("sessions of sandbox " + w.Sandbox)
		}
		all = append(all, Sessions{
			Sandbox: w.Sandbox, Pod: w.Pod, UID: w.UID, Container: w.Container,
			Desired: w.Desired, Seen: w.Seen, Changes: w.Changes, Adopt: w.Adopt,
		})
	}
	return all, nil
}
