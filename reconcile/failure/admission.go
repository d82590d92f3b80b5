package failure

import (
	"fmt"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// An API server says who may not do what, and which rule an object breaks, in
// words only. The patterns below are its own format strings, unchanged since
// Kubernetes 1.25; what they do not match is still reported, by refused.

// match returns what the groups of a pattern match in the server's words, or
// nil when the pattern does not match.
func (a answer) match(pattern string) []string {
	return regexp.MustCompile(`(?s)` + pattern).FindStringSubmatch(a.status.Message)
}

// permission reads an authorizer's refusal.
func (a answer) permission() *Error {
	m := a.match(`User "([^"]*)" cannot (\S+) (?:resource|path) "([^"]+)"(?: in API group "([^"]*)")?(?: in the namespace "([^"]+)")?`)
	if m == nil || !a.is(metav1.StatusReasonForbidden) {
		return nil
	}
	user, verb, kind, group, namespace := m[1], m[2], m[3], m[4], m[5]
	if group != "" {
		kind += "." + group
	}
	code, what, option := PermissionDenied, kind, ""
	switch {
	case kind == "namespaces" && namespace != "":
		code, what = NamespaceAccessDenied, "namespace "+namespace
	case kind == "namespaces":
		code = NamespaceAccessDenied
	case namespace != "":
		code, what, option = NamespaceAccessDenied, kind+" in namespace "+namespace, " --namespace "+namespace
	}
	failure := New(code, a.object, "user %s may not %s %s", user, verb, what).
		WithHint("Have that verb and resource granted to the user by a role; check with: kubectl auth can-i %s %s%s", verb, kind, option).
		With("user", user).With("verb", verb).With("resource", kind)
	if user == "system:anonymous" {
		failure.WithHint("The request carried no credentials: see the context's user in the kubeconfig.")
	}
	if namespace != "" {
		failure.With("namespace", namespace)
	}
	return failure
}

// escalation reads the refusal to let somebody hand out more than they hold.
func (a answer) escalation() *Error {
	m := a.match(`user "([^"]*)".* is attempting to grant RBAC permissions not currently held:\s*(.*)`)
	if m == nil {
		return nil
	}
	return New(PermissionDenied, a.object, "%s would grant what user %s does not hold: %s", a.object, m[1], m[2]).
		WithHint("Have it made by somebody who holds these rights, or the verb escalate on roles.")
}

// podSecurity reads the refusal of Pod Security admission.
func (a answer) podSecurity() *Error {
	m := a.match(`violates PodSecurity "([^"]+)": (.*)`)
	if m == nil {
		return nil
	}
	profile, _, _ := strings.Cut(m[1], ":")
	violation := strings.Join(topLevel(m[2]), "; ")
	return New(PodSecurityViolation, a.object, "%s violates the Pod Security profile %s: %s", a.object, profile, violation).
		WithHint("Remove what violates it, or set podSecurity in the file to the profile that the sandbox needs.").
		With("podName", a.object.Name).With("profile", profile).With("violation", violation)
}

// topLevel splits a list at its commas, except for those in parentheses.
func topLevel(list string) []string {
	var items []string
	depth, start := 0, 0
	for i, r := range list {
		switch {
		case r == '(':
			depth++
		case r == ')':
			depth--
		case r == ',' && depth == 0:
			items = append(items, strings.TrimSpace(list[start:i]))
			start = i + 1
		}
	}
	return append(items, strings.TrimSpace(list[start:]))
}

// quota reads the refusal of a quota that has no room left.
func (a answer) quota() *Error {
	m := a.match(`exceeded quota: ([^,]+), requested: (\S+), used: (\S+), limited: (\S+)`)
	if m == nil {
		return nil
	}
	requested, used, limited := amounts(m[2]), amounts(m[3]), amounts(m[4])
	failure := New(InsufficientResources, a.object, "").With("quota", m[1])
	var lacks []string
	for i, want := range requested {
		if i >= len(used) || i >= len(limited) {
			break
		}
		lacks = append(lacks, fmt.Sprintf("%s %s requested, %s of %s used", want.name, want.text, used[i].text, limited[i].text))
		if i == 0 {
			failure.With("resource", want.name).With("requested", want.text).With("available", difference(limited[i].text, used[i].text))
		}
	}
	failure.Message = line(fmt.Sprintf("quota %s has no room for %s: %s", m[1], a.object, strings.Join(lacks, "; ")))
	return failure.WithHint("Stop a sandbox that is not needed, ask for less, or have the quota raised.")
}

// amount is one item of a quota's list, as requests.cpu=2.
type amount struct{ name, text string }

func amounts(list string) []amount {
	var parsed []amount
	for item := range strings.SplitSeq(list, ",") {
		name, text, _ := strings.Cut(item, "=")
		parsed = append(parsed, amount{name, text})
	}
	return parsed
}

func difference(limit, used string) string {
	left, err := resource.ParseQuantity(limit)
	if err != nil {
		return ""
	}
	gone, err := resource.ParseQuantity(used)
	if err != nil {
		return ""
	}
	left.Sub(gone)
	return left.String()
}

// webhook reads the refusal of an admission webhook or policy, and that of a
// server that could not ask a webhook.
func (a answer) webhook() *Error {
	if m := a.match(`admission webhook "([^"]+)" denied the request(?:: (.*)| without explanation)`); m != nil {
		return a.refusedBy("webhook "+m[1], m[2])
	}
	if m := a.match(`ValidatingAdmissionPolicy '([^']+)' with binding '[^']+' denied request: (.*)`); m != nil {
		return a.refusedBy("policy "+m[1], m[2])
	}
	if m := a.match(`failed calling webhook "([^"]+)": (?:failed to call webhook: )?(.*)`); m != nil {
		return New(AdmissionRefused, a.object, "webhook %s, which must be asked about %s, does not answer: %s", m[1], a.object, m[2]).
			WithHint("See whether the webhook's own pod runs.").With("by", "webhook "+m[1])
	}
	return nil
}

func (a answer) refusedBy(by, reason string) *Error {
	if reason == "" {
		reason = "it does not say why"
	}
	return New(AdmissionRefused, a.object, "%s refuses %s: %s", by, a.object, reason).
		WithHint("Change the file so that it keeps to this rule, or have the rule changed.").With("by", by)
}

// refused is for every other rule of the cluster, as a LimitRange's.
func (a answer) refused() *Error {
	if !a.is(metav1.StatusReasonForbidden) {
		return nil
	}
	return New(AdmissionRefused, a.object, "the cluster refuses %s: %s", a.object, a.words())
}
