package failure

import (
	"slices"
	"strings"
)

// Entry explains one code.
type Entry struct {
	Code  Code   `json:"code"`
	Title string `json:"title"`
	// Status is the HTTP status that AgentPane answers with; 0 for the server's
	// own.
	Status int `json:"status,omitempty"`
	// Tracking is AgentPane's number; empty for a code that it lacks.
	Tracking string `json:"trackingId,omitempty"`
	// Meaning is one or two sentences.
	Meaning string `json:"meaning"`
	// Causes are the likely ones, the likeliest first; Remedies is what to do.
	Causes   []string `json:"causes"`
	Remedies []string `json:"remedies"`
}

// Catalogue returns every code's entry, by what it has to do with: AgentPane's
// first, then the others.
func Catalogue() []Entry {
	return slices.Concat(clusterEntries(), podEntries(), sessionEntries(), securityEntries(), poolEntries(), ownEntries())
}

// tmuxSessionName is AgentPane's name for the one code that is not called as it
// is on the wire.
const tmuxSessionName = "TMUX_SESSION_ALREADY_EXISTS"

// Lookup returns the entry of a code. The code can be in lower case, without
// "K8S_", or AgentPane's number; ok is false when there is no such code.
func Lookup(text string) (entry Entry, ok bool) {
	text = strings.ToUpper(text)
	name := strings.TrimPrefix(text, prefix)
	if name == tmuxSessionName {
		name = strings.TrimPrefix(string(TmuxSessionAlreadyExists), prefix)
	}
	entries := Catalogue()
	i := slices.IndexFunc(entries, func(e Entry) bool {
		return string(e.Code) == prefix+name || e.Tracking != "" && e.Tracking == text
	})
	if i < 0 {
		return Entry{}, false
	}
	return entries[i], true
}

const prefix = "K8S_"
