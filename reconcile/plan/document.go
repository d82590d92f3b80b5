package plan

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/agentpane/sandboxctl/render"
)

// FormatVersion is that of Document: it changes when a field changes its
// meaning or goes.
const FormatVersion = "1"

// Document is a plan as JSON: what plan prints, several under one format version,
// and what it saves for apply. A saved one has FormatVersion, Source and, with
// each change, the object to apply.
type Document struct {
	FormatVersion string           `json:"formatVersion,omitempty"`
	Fleet         string           `json:"fleet"`
	Namespace     string           `json:"namespace"`
	Source        *Source          `json:"source,omitempty"`
	Changes       []DocumentChange `json:"changes"`
	// Sessions are the changes of tmux sessions, and what is in their way.
	Sessions []DocumentSession `json:"sessions"`
	// SessionWork is what a saved plan needs to make them.
	SessionWork []documentSessionWork `json:"sessionWork,omitempty"`
	Kept        []DocumentKept        `json:"kept"`
	// Pools are the warm pools whose levels change.
	Pools   []DocumentPool `json:"pools"`
	Summary Summary        `json:"summary"`
}

// DocumentChange is a Change.
type DocumentChange struct {
	Action      Action          `json:"action"`
	APIVersion  string          `json:"apiVersion"`
	Kind        string          `json:"kind"`
	Namespace   string          `json:"namespace,omitempty"`
	Name        string          `json:"name"`
	Sandbox     string          `json:"sandbox,omitempty"`
	Path        string          `json:"path,omitempty"`
	Disruption  Disruption      `json:"disruption"`
	PodSecurity string          `json:"podSecurity,omitempty"`
	Reason      string          `json:"reason,omitempty"`
	Fields      []DocumentField `json:"fields,omitempty"`
	Conflicts   []Conflict      `json:"conflicts,omitempty"`
	Force       bool            `json:"force,omitempty"`
	Resize      bool            `json:"resize,omitempty"`
	Unvalidated string          `json:"unvalidated,omitempty"`
	Problem     string          `json:"problem,omitempty"`

	UID             types.UID `json:"uid,omitempty"`
	ResourceVersion string    `json:"resourceVersion,omitempty"`
	Seen            string    `json:"seen,omitempty"`
	// IdleSince is when something last happened in a sandbox that stops as idle.
	IdleSince time.Time      `json:"idleSince,omitzero"`
	Desired   map[string]any `json:"desired,omitempty"`
	// Adopt is how a sandbox's new pod comes out of a pool, Volume the claim of
	// a pool's new pod.
	Adopt  *Adoption      `json:"adopt,omitempty"`
	Volume map[string]any `json:"volume,omitempty"`
	// Labels are those of an object that goes.
	Labels map[string]string `json:"labels,omitempty"`
}

// DocumentPool is a PoolLevel.
type DocumentPool struct {
	Name    string           `json:"name"`
	Path    string           `json:"path"`
	From    int              `json:"from"`
	To      int              `json:"to"`
	Create  int              `json:"create"`
	Delete  int              `json:"delete"`
	Changes []DocumentChange `json:"changes"`
}

// DocumentField is a Field; old or new is left out where there is no value.
type DocumentField struct {
	Path      string `json:"path"`
	Old       any    `json:"old,omitempty"`
	New       any    `json:"new,omitempty"`
	Sensitive bool   `json:"sensitive,omitempty"`
}

// DocumentKept is a Kept.
type DocumentKept struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// Summary counts the changes.
type Summary struct {
	Create    int `json:"create"`
	Adopt     int `json:"adopt"`
	Update    int `json:"update"`
	Replace   int `json:"replace"`
	Delete    int `json:"delete"`
	Unchanged int `json:"unchanged"`
	Blocked   int `json:"blocked"`
	// WarmCreate and WarmDelete count the warm pods of all pools.
	WarmCreate int `json:"warmCreate"`
	WarmDelete int `json:"warmDelete"`
	// Sessions counts the changes of sessions, windows and panes.
	Sessions SessionSummary `json:"sessions"`
}

// SessionSummary counts the changes of sessions, windows and panes; Blocked
// those that cannot be made.
type SessionSummary struct {
	Create  int `json:"create"`
	Update  int `json:"update"`
	Delete  int `json:"delete"`
	Blocked int `json:"blocked"`
}

// Summary counts the changes of the plan.
func (p Plan) Summary() Summary {
	summary := Summary{
		Create: p.Count(Create), Adopt: p.Count(Adopt), Update: p.Count(Update),
		Replace: p.Count(Replace), Delete: p.Count(Delete),
		Unchanged: p.Unchanged, Blocked: len(p.Blocked()), Sessions: p.sessionSummary(),
	}
	for _, level := range p.Pools {
		summary.WarmCreate += level.Count(Create)
		summary.WarmDelete += level.Count(Delete)
	}
	return summary
}

// Document is the plan as JSON, without the objects to apply.
func (p Plan) Document() Document {
	document := Document{
		Fleet: p.Fleet, Namespace: p.Namespace,
		Changes: documentChanges(p.Changes), Sessions: p.documentSessions(), Kept: []DocumentKept{}, Pools: []DocumentPool{}, Summary: p.Summary(),
	}
	for _, kept := range p.Kept {
		document.Kept = append(document.Kept, DocumentKept{Kind: kept.Ref.Kind, Name: kept.Ref.Name, Reason: kept.Reason})
	}
	for _, level := range p.Pools {
		document.Pools = append(document.Pools, DocumentPool{
			Name: level.Name, Path: level.Path, From: level.From, To: level.To,
			Create: level.Count(Create), Delete: level.Count(Delete), Changes: documentChanges(level.Changes),
		})
	}
	return document
}

func documentChanges(changes []Change) []DocumentChange {
	documents := []DocumentChange{}
	for _, change := range changes {
		apiVersion, kind := change.Ref.ToAPIVersionAndKind()
		c := DocumentChange{
			Action: change.Action, APIVersion: apiVersion, Kind: kind,
			Namespace: change.Ref.Namespace, Name: change.Ref.Name, Sandbox: change.Sandbox(), Path: change.Path,
			Disruption: change.Disruption, PodSecurity: change.PodSecurity, Reason: change.Reason,
			Conflicts: change.Conflicts, Force: change.Force, Resize: change.Resize, Unvalidated: change.Unvalidated,
			UID: change.UID, ResourceVersion: change.ResourceVersion, Seen: change.Seen, IdleSince: change.IdleSince,
		}
		if change.Problem != nil {
			c.Problem = change.Problem.Error()
		}
		for _, field := range change.Fields {
			c.Fields = append(c.Fields, DocumentField(field))
		}
		if change.Adopt != nil {
			c.Adopt = &Adoption{Pool: change.Adopt.Pool, Sandbox: change.Adopt.Sandbox}
		}
		documents = append(documents, c)
	}
	return documents
}

// Savable tells whether apply could do all that the plan says, of sessions too.
func (p Plan) Savable() bool { return len(p.Blocked()) == 0 && p.sessionSummary().Blocked == 0 }

// Save is the plan as apply can take it up again, for source.
func (p Plan) Save(source Source) ([]byte, error) {
	if !p.Savable() {
		return nil, errors.New("a plan that cannot be applied cannot be saved")
	}
	document := p.Document()
	document.FormatVersion, document.Source = FormatVersion, &source
	toApply(document.Changes, p.Changes)
	for i, level := range p.Pools {
		toApply(document.Pools[i].Changes, level.Changes)
	}
	document.SessionWork = p.sessionWork()
	return json.MarshalIndent(document, "", "  ")
}

// toApply adds the objects to apply.
func toApply(documents []DocumentChange, changes []Change) {
	for i, change := range changes {
		if change.Desired != nil {
			documents[i].Desired = change.Desired.Object
		} else {
			documents[i].Labels = change.Labels
		}
		if change.Volume != nil {
			documents[i].Volume = change.Volume.Object
		}
		documents[i].Adopt = change.Adopt
	}
}

// Open reads a saved plan.
func Open(content []byte) (Plan, Source, error) {
	var document Document
	// Numbers are to come back as what they were: int64 stays int64.
	if err := utiljson.Unmarshal(content, &document); err != nil {
		return Plan{}, Source{}, fmt.Errorf("it is no saved plan: %w", err)
	}
	if document.FormatVersion != FormatVersion {
		return Plan{}, Source{}, fmt.Errorf("it is of format version %q, and this program reads %q: make it anew", document.FormatVersion, FormatVersion)
	}
	if document.Source == nil {
		return Plan{}, Source{}, errors.New("it was printed by plan -o json: only what plan --out saved can be applied")
	}
	p := Plan{Fleet: document.Fleet, Namespace: document.Namespace, Unchanged: document.Summary.Unchanged}
	var err error
	if p.Changes, err = openChanges(document.Changes); err != nil {
		return Plan{}, Source{}, err
	}
	for _, level := range document.Pools {
		changes, err := openChanges(level.Changes)
		if err != nil {
			return Plan{}, Source{}, err
		}
		p.Pools = append(p.Pools, PoolLevel{Name: level.Name, Path: level.Path, From: level.From, To: level.To, Changes: changes})
	}
	if p.Sessions, err = openSessions(content); err != nil {
		return Plan{}, Source{}, fmt.Errorf("it is damaged: %w", err)
	}
	return p, *document.Source, nil
}

func openChanges(documents []DocumentChange) ([]Change, error) {
	var changes []Change
	for _, c := range documents {
		change := Change{
			Ref: Ref{
				GroupVersionKind: schema.FromAPIVersionAndKind(c.APIVersion, c.Kind),
				Namespace:        c.Namespace, Name: c.Name,
			},
			Action: c.Action, Path: c.Path, Disruption: c.Disruption, PodSecurity: c.PodSecurity, Reason: c.Reason,
			Conflicts: c.Conflicts, Force: c.Force, Resize: c.Resize, Unvalidated: c.Unvalidated,
			UID: c.UID, ResourceVersion: c.ResourceVersion, Seen: c.Seen, IdleSince: c.IdleSince, Adopt: c.Adopt, Labels: c.Labels,
		}
		for _, field := range c.Fields {
			change.Fields = append(change.Fields, Field(field))
		}
		if c.Desired != nil {
			change.Desired = &unstructured.Unstructured{Object: c.Desired}
			change.Labels = change.Desired.GetLabels()
		}
		if c.Volume != nil {
			change.Volume = &unstructured.Unstructured{Object: c.Volume}
		}
		if !change.whole() {
			return nil, fmt.Errorf("it is damaged: %s of %s", change.Action, change)
		}
		changes = append(changes, change)
	}
	return changes, nil
}

// whole tells whether a change has what its action needs, and is about one
// object of a kind that fleets have.
func (c Change) whole() bool {
	if render.KindOf(c.Ref.GroupVersionKind).Resource.Resource == "" || c.Ref.Name == "" {
		return false
	}
	if c.Action != Delete && (c.Desired == nil || !c.fits(RefOf(c.Desired))) {
		return false
	}
	switch c.Action {
	case Create:
		return c.UID == ""
	case Adopt, Update, Replace:
		return c.UID != "" && c.Seen != ""
	case Delete:
		return c.UID != "" && c.Seen != "" && c.Desired == nil
	}
	return false
}

// fits tells whether what is applied is the object that the change is about. A
// pod can be replaced by one of another name.
func (c Change) fits(desired Ref) bool {
	if c.Action == Replace && c.Ref.Kind == "Pod" {
		desired.Name = c.Ref.Name
	}
	return desired == c.Ref
}
