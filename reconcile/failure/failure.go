// Package failure holds what can go wrong with a cluster as values. Each kind
// of failure has a code, which programs can rely on and the catalogue explains.
// Codes, statuses and details are AgentPane's, and the few that it lacks say so
// in their entry. [From] turns what an API server or the network says into such
// a failure. The package never prints, never talks to a cluster, and never
// repeats the value of a field that a server refused, which may be a secret: it
// says where the value stands.
package failure

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Error is a failure.
type Error struct {
	Code Code `json:"code"`
	// Message is one line without a full stop that names the object.
	Message string `json:"message"`
	// Status is the HTTP status that AgentPane answers with; for APIError it is
	// the server's own.
	Status int `json:"status"`
	// Hint is what to do about it, one line; it can be empty.
	Hint   string `json:"hint,omitempty"`
	Object Object `json:"object,omitzero"`
	// Details are for programs, by AgentPane's names.
	Details map[string]any `json:"details,omitempty"`

	cause error
}

// Object is what a failure is about. Any part can be empty.
type Object struct {
	Kind      string `json:"kind,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
}

// String is how people are told of the object, as "pod api in namespace team".
func (o Object) String() string {
	text := strings.TrimSpace(strings.ToLower(o.Kind) + " " + o.Name)
	if text == "" {
		text = "the object"
	}
	if o.Namespace != "" {
		text += " in namespace " + o.Namespace
	}
	return text
}

// New returns a failure of that code, about that object, with that message. The
// methods below add to it.
func New(code Code, object Object, format string, args ...any) *Error {
	entry, _ := Lookup(string(code))
	return &Error{Code: code, Status: entry.Status, Object: object, Message: line(fmt.Sprintf(format, args...))}
}

// WithHint sets what to do about it.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = line(fmt.Sprintf(format, args...))
	return e
}

// With adds a detail.
func (e *Error) With(key string, value any) *Error {
	if e.Details == nil {
		e.Details = map[string]any{}
	}
	e.Details[key] = value
	return e
}

// Because sets the error that it stems from, for errors.Is and errors.As. That
// error's text is not printed: the message says what matters of it.
func (e *Error) Because(cause error) *Error {
	e.cause = cause
	return e
}

// Error returns the code and the message.
func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// Unwrap returns the error that it stems from, or nil.
func (e *Error) Unwrap() error { return e.cause }

// CodeOf returns the code of the first failure in err, or "" when there is none.
func CodeOf(err error) Code {
	if failure, ok := errors.AsType[*Error](err); ok {
		return failure.Code
	}
	return ""
}

// lengthLimit keeps a message readable, whatever a server has to say.
const lengthLimit = 1000

var userInfo = regexp.MustCompile(`://[^/@\s]+@`)

// line returns text as one line, not too long, and without the passwords that
// URLs can hold.
func line(text string) string {
	text = userInfo.ReplaceAllString(strings.Join(strings.Fields(text), " "), "://")
	if runes := []rune(text); len(runes) > lengthLimit {
		text = string(runes[:lengthLimit-1]) + "…"
	}
	return text
}
