package plan

import (
	"errors"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/render"
)

// Masked stands in place of a value that must not be shown. Two of them tell
// whether the value changes, and nothing else.
const (
	Masked        = "(sensitive)"
	MaskedChanged = "(sensitive, changed)"
)

// Unknown stands in place of what the server decides while the plan is applied:
// the address of the egress gateway, before it is there.
const Unknown = "(known after apply)"

// sensitiveNames are environment variables whose values are secrets more often
// than not. Values belong in a Secret (envFrom); this is for those that do not
// know yet.
var sensitiveNames = regexp.MustCompile(`(?i)(token|secret|password|passwd|passphrase|credential|private_?key|api_?key|access_?key|auth|(^|_)(key|pwd|pat|dsn)(_|$))`)

// urlPassword is a URL that holds one, as postgres://user:password@host.
var urlPassword = regexp.MustCompile(`[A-Za-z][A-Za-z0-9+.-]*://[^/@\s]*:[^/@\s]+@`)

var envValue = regexp.MustCompile(`\.env\[([^]]*)\]\.value$`)

// mask hides what must not be shown. It is the one place that does so, and
// everything that leaves the package has been through it.
func mask(kind string, fields []Field) []Field {
	masked := slices.Clone(fields)
	for i, field := range masked {
		if field.New == any(render.UnknownAddress) && strings.HasPrefix(field.Path, ".spec.dnsConfig.nameservers") {
			masked[i].New = Unknown
		}
		if !sensitive(kind, field) {
			continue
		}
		masked[i].Sensitive = true
		if field.Old != nil {
			masked[i].Old = Masked
		}
		if field.New != nil {
			masked[i].New = Masked
			if field.Old != nil {
				masked[i].New = MaskedChanged
			}
		}
	}
	return masked
}

func sensitive(kind string, field Field) bool {
	path := field.Path
	if kind == "Secret" && (strings.HasPrefix(path, ".data") || strings.HasPrefix(path, ".stringData")) {
		return true
	}
	if strings.Contains(path, "last-applied-configuration") { // holds the object as it once was
		return true
	}
	if strings.Contains(path, render.EnvAnnotation) { // holds all of a sandbox's own variables
		return true
	}
	if holdsPassword(field.Old) || holdsPassword(field.New) {
		return true
	}
	env := envValue.FindStringSubmatch(path)
	return env != nil && sensitiveNames.MatchString(env[1])
}

func holdsPassword(value any) bool {
	text, ok := value.(string)
	return ok && urlPassword.MatchString(text)
}

// maskProblem hides in a refusal the values of the objects that must not be
// shown: some servers, and webhooks, repeat what they were asked to take.
func maskProblem(problem error, objects ...*unstructured.Unstructured) error {
	refusal, ok := errors.AsType[*failure.Error](problem)
	if !ok {
		return problem
	}
	const shortest = 4 // what is shorter is found in any word, and no secret
	masked := *refusal
	for _, object := range objects {
		if object == nil {
			continue
		}
		for _, field := range Diff(nil, contentOf(object)) {
			if value, ok := field.New.(string); ok && len(value) >= shortest && sensitive(object.GetKind(), field) {
				masked.Message = strings.ReplaceAll(masked.Message, value, Masked)
			}
		}
	}
	return &masked
}
