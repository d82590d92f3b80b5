package plan

import (
	"regexp"
	"slices"
	"strings"

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
var sensitiveNames = regexp.MustCompile(`(?i)(token|secret|password|passwd|credential|private_?key|api_?key|access_?key|auth)`)

var envValue = regexp.MustCompile(`\.env\[([^]]*)\]\.value$`)

// mask hides what must not be shown. It is the one place that does so, and
// everything that leaves the package has been through it.
func mask(kind string, fields []Field) []Field {
	masked := slices.Clone(fields)
	for i, field := range masked {
		if field.New == any(render.UnknownAddress) && strings.HasPrefix(field.Path, ".spec.dnsConfig.nameservers") {
			masked[i].New = Unknown
		}
		if !sensitive(kind, field.Path) {
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

func sensitive(kind, path string) bool {
	if kind == "Secret" && (strings.HasPrefix(path, ".data") || strings.HasPrefix(path, ".stringData")) {
		return true
	}
	if strings.Contains(path, "last-applied-configuration") { // holds the object as it once was
		return true
	}
	if strings.Contains(path, render.EnvAnnotation) { // holds all of a sandbox's own variables
		return true
	}
	env := envValue.FindStringSubmatch(path)
	return env != nil && sensitiveNames.MatchString(env[1])
}
