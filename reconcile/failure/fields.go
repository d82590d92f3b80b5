package failure

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// fieldConflict reads a server-side apply's conflict with other managers.
func (a answer) fieldConflict() *Error {
	var fields []string
	for _, cause := range a.causes() {
		if cause.Type == metav1.CauseTypeFieldManagerConflict {
			fields = append(fields, cause.Field+" ("+strings.TrimPrefix(cause.Message, "conflict with ")+")")
		}
	}
	if fields == nil {
		return nil
	}
	return New(Conflict, a.object, "fields of %s belong to another manager: %s", a.object, strings.Join(fields, ", ")).
		WithHint("Remove them from the file, or take them over: --force-conflicts").With("fields", fields)
}

// changed reads that the object is not the one, or not in the state, that the
// request was meant for.
func (a answer) changed() *Error {
	if !a.is(metav1.StatusReasonConflict) {
		return nil
	}
	reason := a.words()
	if _, rest, found := strings.Cut(reason, ": "); found { // after the object's name
		reason = rest
	}
	return New(Conflict, a.object, "%s was changed in the meantime: %s", a.object, reason).
		WithHint("Make a new plan, and look at it: somebody else is at work there.")
}

// invalid reads what is wrong with which field.
func (a answer) invalid() *Error {
	if !a.is(metav1.StatusReasonInvalid) {
		return nil
	}
	code, verdict := Invalid, "is not valid"
	var faults []string
	for _, cause := range a.causes() {
		fault := withoutValue(cause.Message)
		switch {
		case !immutable(fault):
		case cause.Field == "metadata.uid": // fixed, but what it says is that this is another object
			return New(Conflict, a.object, "%s was deleted and made anew in the meantime", a.object).
				WithHint("Make a new plan, and look at it: somebody else is at work there.")
		default:
			code, verdict = Immutable, "cannot be changed like that"
		}
		faults = append(faults, strings.TrimPrefix(cause.Field+": ", ": ")+fault)
	}
	if faults == nil {
		faults = []string{"the server does not say why"}
	}
	return New(code, a.object, "%s %s: %s", a.object, verdict, strings.Join(faults, "; ")).With("fields", faults)
}

func immutable(fault string) bool {
	return strings.Contains(fault, "immutable") || strings.Contains(fault, "updates may not change fields")
}

// withoutValue takes the refused value out of the text of a cause, and the
// differences that a pod's refusal goes on with: both can hold secrets.
// "Invalid value: -3: must not be negative" becomes "must not be negative".
func withoutValue(text string) string {
	text, _, _ = strings.Cut(text, "\n")
	fault, rest, found := strings.Cut(text, ": ")
	if !found || !slices.Contains([]string{"Invalid value", "Unsupported value", "Duplicate value", "Not found", "Too many"}, fault) {
		return text
	}
	switch quoted, err := strconv.QuotedPrefix(rest); {
	case err == nil:
		rest = rest[len(quoted):]
	default:
		decoder := json.NewDecoder(strings.NewReader(rest))
		if decoder.Decode(new(any)) != nil {
			return strings.ToLower(fault)
		}
		rest = rest[decoder.InputOffset():]
	}
	if rest = strings.TrimPrefix(rest, ": "); rest == "" {
		return strings.ToLower(fault)
	}
	return rest
}

// notDeclared reads that the server does not know a field. Under server-side
// apply it says so as if it were its own fault, with status 500.
func (a answer) notDeclared() *Error {
	var faults []string
	if m := a.match(`failed to create typed patch object \([^)]*\): (.*)`); m != nil {
		for fault := range strings.Lines(strings.TrimPrefix(m[1], "errors:\n")) {
			fault, _, _ = strings.Cut(fault, ", got ") // a value
			faults = append(faults, strings.TrimSpace(fault))
		}
	} else if m := a.match(`strict decoding error: (.*)`); m != nil {
		faults = []string{m[1]}
	} else {
		return nil
	}
	return New(Invalid, a.object, "%s is not valid: %s", a.object, strings.Join(faults, "; ")).
		WithHint("A field that is not declared is misspelt, or the cluster is older than it is.").With("fields", faults)
}
