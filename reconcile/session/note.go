package session

import "encoding/json"

// NoteAnnotation is the pod's annotation that says for which container which
// sessions were made and seen to be there.
const NoteAnnotation = "agentpane.io/sessions"

// NoteManager is the field manager of the annotation: another than that of what
// is applied, so that neither disturbs the other.
const NoteManager = "sandboxctl-sessions"

// Note is the value of NoteAnnotation. While it is what the file and the pod's
// status say, nobody has to look into the sandbox. A container that starts anew
// has lost all sessions, and another id or count.
type Note struct {
	// Hash is that of the Desired that was confirmed.
	Hash      string    `json:"hash"`
	Container Container `json:"container"`
}

// Container names one life of a sandbox's container.
type Container struct {
	ID       string `json:"id"`
	Restarts int64  `json:"restarts"`
}

// Text is the value of the annotation; it is empty where there is nothing to
// note, and the annotation goes.
func (n Note) Text() string {
	if n.Hash == "" {
		return ""
	}
	encoded, err := json.Marshal(n)
	if err != nil {
		panic(err) // strings and a number always can be encoded
	}
	return string(encoded)
}
