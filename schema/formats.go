package schema

import (
	"fmt"
	"path"
	"regexp"
	"strings"
	"time"
	"unicode"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/agentpane/sandboxctl/schema/diagnostic"
	"github.com/agentpane/sandboxctl/schema/internal/shape"
)

// formats returns what the values of the schema's named definitions mean. Each check returns "" or what to do.
func formats() map[string]shape.Format {
	return map[string]shape.Format{
		"Name":        {Title: "a name", Check: dnsLabel(39)},
		"Namespace":   {Title: "a namespace", Check: dnsLabel(validation.DNS1123LabelMaxLength)},
		"QuotaName":   {Title: "the name of a resource", Check: quotaName},
		"ObjectName":  {Title: "the name of an object", Check: objectName},
		"Project":     {Title: "a project name", Check: labelValue},
		"SessionName": {Title: "a session name", Check: sessionName},
		"EnvName":     {Title: "the name of a variable", Check: envName},
		"EnvValue":    {Title: "a plain string", Check: withoutNUL},
		"CommandLine": {Title: "a command", Check: command},
		"Argument":    {Title: "a plain string", Check: withoutNUL},
		"LabelKey":    {Title: "a label key", Check: labelKey},
		"LabelValue":  {Title: "a label value", Check: labelValue},
		"Path":        {Title: "a clean absolute path", Check: absolutePath},
		"Image":       {Title: "an image reference", Check: imageReference},
		"Duration":    {Title: "a duration", Check: CheckDuration},
		"CPU":         {Title: "an amount of CPU", Check: cpu},
		"Memory":      {Title: "an amount of memory", Check: memory},
		"Size":        {Title: "a size", Check: memory},
		"Amount":      {Title: "a quantity", Check: amount},
		"Count":       {Title: "a number of objects", Check: count},
		"Host":        {Title: "a host name", Check: hostName},
		"CIDR":        {Title: "a range of addresses", Check: cidr},
	}
}

func write(text string) string { return "Write " + diagnostic.Quote(text) + "." }

// dnsLabel returns the check of a DNS label that is no longer than longest.
func dnsLabel(longest int) func(string) string {
	return func(text string) string {
		switch {
		case text == "":
			return "It is empty."
		case len(text) > longest:
			return fmt.Sprintf("It has %d characters. At most %d are possible, so that the names made from it are valid too.", len(text), longest)
		case len(validation.IsDNS1123Label(text)) > 0:
			return strings.TrimSpace(`Use the letters a to z, digits and "-", with a letter or digit at both ends. ` + suggestion(text, "-"))
		}
		return ""
	}
}

// suggestion proposes text with everything that a DNS label cannot have replaced, if anything remains.
func suggestion(text, replacement string) string {
	wrong := regexp.MustCompile(`[^a-z0-9]+`)
	if label := strings.Trim(wrong.ReplaceAllString(strings.ToLower(text), replacement), "-_"); label != "" && label != text {
		return write(label)
	}
	return ""
}

func objectName(text string) string {
	if len(validation.IsDNS1123Subdomain(text)) > 0 {
		return `Use at most 253 of the letters a to z, digits, "-" and ".", with a letter or digit at both ends of each part.`
	}
	return ""
}

func quotaName(text string) string {
	if len(validation.IsQualifiedName(text)) > 0 {
		return `Write <prefix>/<name>: the prefix a DNS name, the name of at most 63 letters, digits, "-", "_" and ".", with a letter or digit at both ends of each.`
	}
	return ""
}

func sessionName(text string) string {
	if strings.ContainsAny(text, ".:") {
		return `tmux uses "." and ":" for windows and panes. ` + write(strings.NewReplacer(".", "-", ":", "-").Replace(text))
	}
	if text == "" || len(text) > 63 || text[0] == '-' || strings.ContainsFunc(text, notWord) {
		return `Use at most 63 letters, digits, "-" and "_", and no "-" first.`
	}
	return ""
}

func notWord(r rune) bool {
	return r != '-' && r != '_' && (r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r))
}

func envName(text string) string {
	switch {
	case text == "" || strings.ContainsFunc(text, func(r rune) bool { return r == '-' || notWord(r) }):
		return `Use letters, digits and "_": shells know no others.`
	case text[0] >= '0' && text[0] <= '9':
		return "It cannot begin with a digit. " + write("_"+text)
	}
	return ""
}

// withoutNUL checks what becomes an argument or an environment variable of a process, which end at a NUL.
func withoutNUL(text string) string {
	if strings.ContainsRune(text, 0) {
		return "It contains a NUL character, which no process can be given."
	}
	return ""
}

func command(text string) string {
	if strings.TrimSpace(text) == "" {
		return "It is blank. Write null for a shell to type in."
	}
	return withoutNUL(text)
}

// reservedPrefixes belong to this project and to ApplySet: labels under them decide who owns an object and which
// policies cover it.
var reservedPrefixes = [...]string{"agentpane.io", "applyset.kubernetes.io"}

func labelKey(text string) string {
	prefix, _, hasPrefix := strings.Cut(text, "/")
	for _, reserved := range reservedPrefixes {
		if hasPrefix && (prefix == reserved || strings.HasSuffix(prefix, "."+reserved)) {
			return "The prefix " + reserved + "/ is reserved: what is under it decides who owns an object and which policies cover it. Use a prefix of your own."
		}
	}
	if len(validation.IsQualifiedName(text)) > 0 {
		return `Write [prefix/]name: the name of at most 63 letters, digits, "-", "_" and ".", the prefix a DNS name in lower case.`
	}
	return ""
}

func labelValue(text string) string {
	switch {
	case len(text) > validation.LabelValueMaxLength:
		return fmt.Sprintf("It has %d characters. A label's value has at most %d.", len(text), validation.LabelValueMaxLength)
	case len(validation.IsValidLabelValue(text)) > 0:
		return `Use letters, digits, "-", "_" and ".", with a letter or digit at both ends.`
	}
	return ""
}

func absolutePath(text string) string {
	switch {
	case strings.HasPrefix(text, "~"):
		return `"~" has no meaning here. Write the whole path, from "/" on.`
	case !strings.HasPrefix(text, "/"):
		return `Write the whole path, from "/" on.`
	case strings.ContainsFunc(text, unicode.IsControl):
		return "It contains a control character."
	case path.Clean(text) != text:
		return write(path.Clean(text))
	}
	return ""
}

// CheckDuration checks a duration of Go's, which is what Kubernetes' tools take as well. It returns "" or what to do.
func CheckDuration(text string) string {
	d, err := time.ParseDuration(text)
	var number float64
	var unit string
	if n, _ := fmt.Sscanf(text, "%g%s", &number, &unit); err != nil && n == 1 && CheckDuration(text+"s") == "" {
		return `The unit is missing. ` + write(text+"s") + " Others are m and h."
	}
	hours := map[string]float64{"d": 24, "day": 24, "days": 24, "w": 7 * 24, "week": 7 * 24, "weeks": 7 * 24}
	inHours := fmt.Sprintf("%gh", number*hours[unit])
	switch {
	case err != nil && hours[unit] > 0 && CheckDuration(inHours) == "":
		return "The longest unit is the hour. " + write(inHours)
	case err != nil:
		return `Write a number and a unit, s, m or h: "30s", "5m", "1h30m".`
	case d <= 0:
		return "It must be longer than nothing."
	}
	return ""
}

var (
	imageHost   = regexp.MustCompile(`^([A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?$`)
	imagePart   = regexp.MustCompile(`^[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*$`)
	imageTag    = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
	imageDigest = regexp.MustCompile(`^(sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})$`)
)

// imageReference checks a reference by the grammar of the distribution specification.
func imageReference(text string) string {
	if _, rest, found := strings.Cut(text, "://"); found {
		return "It is not a URL. " + write(rest)
	}
	name, tag, digest := splitImage(text)
	parts := strings.Split(name, "/")
	if host := parts[0]; len(parts) > 1 && (strings.ContainsAny(host, ".:") || host == "localhost") {
		if !imageHost.MatchString(host) {
			return "The registry " + diagnostic.Quote(host) + " is not a host and port."
		}
		parts = parts[1:]
	}
	for _, part := range parts {
		if lower := strings.ToLower(part); lower != part && imagePart.MatchString(lower) {
			return "The name is in lower case. " + write(strings.Replace(text, part, lower, 1))
		}
		if !imagePart.MatchString(part) {
			return "Write [registry/]name[:tag][@digest]. The part " + diagnostic.Quote(part) + " is not possible in a name."
		}
	}
	switch {
	case tag != "" && !imageTag.MatchString(tag[1:]):
		return "The tag " + diagnostic.Quote(tag[1:]) + ` is not possible: at most 128 letters, digits, "-", "_" and ".".`
	case digest != "" && !imageDigest.MatchString(digest[1:]):
		return "The digest " + diagnostic.Quote(digest[1:]) + " is not possible: sha256: and 64 of the digits 0 to 9 and a to f."
	}
	return ""
}

// splitImage returns the name, the tag with its ":" and the digest with its "@"; the latter two may be empty.
func splitImage(text string) (name, tag, digest string) {
	name = text
	if at := strings.IndexByte(name, '@'); at >= 0 {
		name, digest = name[:at], name[at:]
	}
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		name, tag = name[:colon], name[colon:]
	}
	return name, tag, digest
}
