package failure

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// From turns err, with which a request about object ended, into an *Error that
// says the same by its code. The object can be left out where the server names
// it. Nil stays nil, an err that holds an *Error already is that one, and an
// interrupt (context.Canceled) stays what it is: it is no failure.
func From(err error, object Object) error {
	if err == nil {
		return nil
	}
	if known, ok := errors.AsType[*Error](err); ok {
		return known
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	if status := apierrors.APIStatus(nil); errors.As(err, &status) {
		return fromStatus(status.Status(), object).Because(err)
	}
	return fromNetwork(err, object).Because(err)
}

// answer is what a server said, and about what.
type answer struct {
	status metav1.Status
	object Object
}

// fromStatus asks one reader after the other what it makes of the answer: some
// answers differ by nothing but their wording.
func fromStatus(status metav1.Status, object Object) *Error {
	a := answer{status, object.or(named(status.Details))}
	for _, read := range []func(answer) *Error{
		answer.webhook,     // a webhook chooses its own status and reason
		answer.terminating, // what follows, up to refused, is "Forbidden" to the server
		answer.podSecurity,
		answer.quota,
		answer.escalation,
		answer.permission,
		answer.refused,
		answer.fieldConflict, // "Conflict", as what follows
		answer.changed,
		answer.notDeclared, // no reason at all
		answer.invalid,
		answer.notFound,
		answer.alreadyExists,
		answer.unauthorized,
	} {
		if failure := read(a); failure != nil {
			return failure
		}
	}
	return a.other()
}

func (a answer) is(reason metav1.StatusReason) bool { return a.status.Reason == reason }

// causes are the answer's details.
func (a answer) causes() []metav1.StatusCause {
	if a.status.Details == nil {
		return nil
	}
	return a.status.Details.Causes
}

// words is what the server said beside naming the object, as it says so often.
func (a answer) words() string {
	words := a.status.Message
	for _, infix := range []string{" is forbidden: ", "Operation cannot be fulfilled on ", "Internal error occurred: "} {
		if _, rest, found := strings.Cut(words, infix); found {
			words = rest
		}
	}
	return words
}

func (a answer) terminating() *Error {
	for _, cause := range a.causes() {
		if cause.Type == corev1.NamespaceTerminatingCause {
			return New(NamespaceTerminating, a.object, "%s cannot be made: the %s", a.object, cause.Message).
				WithHint("Wait until the namespace is gone, and apply again; kubectl get namespace %s -o yaml says what holds it up.", a.object.Namespace)
		}
	}
	return nil
}

func (a answer) notFound() *Error {
	if !a.is(metav1.StatusReasonNotFound) {
		return nil
	}
	for _, cause := range a.causes() {
		if cause.Type == metav1.CauseTypeUnexpectedServerResponse { // an answer, but not of a Kubernetes API
			return a.api("the server does not know where %s would be: is it a Kubernetes API server?", a.object)
		}
	}
	// What lacks need not be what was asked about: it can be its namespace.
	missing := named(a.status.Details)
	if missing.Kind == "" || missing.Kind == strings.ToLower(a.object.Kind) {
		missing = a.object
	}
	switch strings.ToLower(missing.Kind) {
	case "pod":
		return New(PodNotFound, missing, "%s does not exist", missing).
			With("podName", missing.Name).With("namespace", missing.Namespace)
	case "namespace":
		return New(NamespaceNotFound, missing, "%s does not exist", missing).With("namespace", missing.Name)
	case "networkpolicy":
		return New(NetworkPolicyNotFound, missing, "%s does not exist", missing).
			With("policyName", missing.Name).With("namespace", missing.Namespace)
	}
	if missing.Name == "" {
		return a.api("the server does not know this kind of object: %s", a.words())
	}
	return a.api("%s does not exist", missing)
}

func (a answer) alreadyExists() *Error {
	switch {
	case !a.is(metav1.StatusReasonAlreadyExists):
		return nil
	case strings.EqualFold(a.object.Kind, "pod"):
		return New(PodAlreadyExists, a.object, "%s exists already", a.object)
	default:
		return a.api("%s exists already", a.object)
	}
}

func (a answer) unauthorized() *Error {
	if !a.is(metav1.StatusReasonUnauthorized) {
		return nil
	}
	return New(Unauthorized, a.object, "the server does not accept the credentials of the kubeconfig's user").
		WithHint("A token or certificate may have expired: log in again, as you do for kubectl.")
}

// other is an answer that has no code of its own.
func (a answer) other() *Error {
	if a.is(metav1.StatusReasonTooManyRequests) || a.status.Code == http.StatusTooManyRequests {
		failure := a.api("the server has too many requests to answer this one about %s", a.object)
		if a.status.Details != nil && a.status.Details.RetryAfterSeconds > 0 {
			failure.WithHint("It asks for a pause of %d seconds.", a.status.Details.RetryAfterSeconds)
		}
		return failure
	}
	if strings.EqualFold(a.object.Kind, "secret") { // the server may quote what is in it
		return a.api("the server refuses %s; what it says is not shown, as it may be secret", a.object)
	}
	if a.status.Code >= http.StatusInternalServerError {
		return a.api("the server failed at %s: %s", a.object, a.words())
	}
	return a.api("the server refuses %s: %s", a.object, a.words())
}

// api is a failure without a code of its own; its status is the server's.
func (a answer) api(format string, args ...any) *Error {
	failure := New(APIError, a.object, "%s (%d)", fmt.Sprintf(format, args...), a.status.Code).With("statusCode", a.status.Code)
	failure.Status = int(a.status.Code)
	return failure
}

// or returns the object with what it lacks taken from another.
func (o Object) or(other Object) Object {
	if o.Kind == "" {
		o.Kind = other.Kind
	}
	if o.Name == "" {
		o.Name = other.Name
	}
	return o
}

// named is the object that a server's answer is about; it never says in which
// namespace that is.
func named(details *metav1.StatusDetails) Object {
	if details == nil {
		return Object{}
	}
	return Object{Kind: singular(details.Kind), Name: details.Name}
}

// singular makes a kind of the resource which servers call "kind" in most of
// their answers.
func singular(resource string) string {
	resource = strings.ToLower(resource)
	switch {
	case strings.HasSuffix(resource, "ies"):
		return strings.TrimSuffix(resource, "ies") + "y"
	case strings.HasSuffix(resource, "sses"):
		return strings.TrimSuffix(resource, "es")
	case strings.HasSuffix(resource, "ss"):
		return resource
	}
	return strings.TrimSuffix(resource, "s")
}
