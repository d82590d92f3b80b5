package schema

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/net/idna"

	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

var (
	hostPort  = regexp.MustCompile(`^([^:/]+):([0-9]+)$`)
	hostLabel = regexp.MustCompile(`^[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?$`)
	allDigits = regexp.MustCompile(`^[0-9]+$`)
)

// Covers reports whether the rule's host means the name: that name itself, or for "*." and a name all that is below it,
// however deep, and not the name itself. The name is taken as [CanonicalHost] gives it.
func (r EgressRule) Covers(name string) bool {
	if parent, wildcard := strings.CutPrefix(r.Host, "*"); wildcard {
		return len(name) > len(parent) && strings.HasSuffix(name, parent)
	}
	return r.Host != "" && r.Host == name
}

// CanonicalHost returns a name as it stands in a file, from how it stands in a request: in lower case and without the dot
// at the end that DNS allows; false for what is no name, as an address or what is not ASCII.
func CanonicalHost(name string) (string, bool) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return name, !strings.HasPrefix(name, "*") && hostName(name) == ""
}

// hostName checks a name as it stands in a TLS or HTTP request, where the gateway looks for it.
func hostName(text string) string {
	if other := notHost(text); other != "" {
		return other
	}
	name, wildcard := strings.CutPrefix(text, "*.")
	labels := strings.Split(name, ".")
	switch {
	case strings.HasSuffix(text, "."):
		return "It has no dot at the end. " + writeHost(strings.TrimRight(text, "."))
	case strings.ToLower(text) != text:
		return "It is in lower case. " + writeHost(strings.ToLower(text))
	case text == "*":
		return `There is no host for everything. Write {preset: public-https}, or {cidr: 0.0.0.0/0}.`
	case strings.Contains(name, "*"):
		return `A "*" stands at the beginning, for everything below a name: "*.example.org".`
	case wildcard && len(labels) < 2:
		return `That is everything below a top-level domain. At least two labels follow the "*.": "*.example.org".`
	case len(labels) < 2:
		return "Write the full name, with its domain."
	case len(name) > 253:
		return "It is longer than 253 characters."
	case allDigits.MatchString(labels[len(labels)-1]):
		return "It looks like an address, and is none: no name ends in a number."
	}
	for _, label := range labels {
		if !hostLabel.MatchString(label) {
			return `The part ` + diagnostic.Quote(label) + ` is not possible: 1 to 63 letters, digits and "-", with a letter or digit at both ends.`
		}
	}
	return ""
}

// notHost recognises what people write in place of a host name, and says where it goes.
func notHost(text string) string {
	if scheme, rest, found := strings.Cut(text, "://"); found {
		host, _, _ := strings.Cut(rest, "/")
		host, _, _ = strings.Cut(host, ":")
		return fmt.Sprintf("%q is not part of a name. ", scheme+"://") + writeHost(host)
	}
	if addr, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return fmt.Sprintf("It is an address. Write {cidr: %s}.", whole(addr))
	}
	if prefix, err := netip.ParsePrefix(text); err == nil {
		return fmt.Sprintf("It is a range of addresses. Write {cidr: %s}.", prefix.Masked())
	}
	if host, _, found := strings.Cut(text, "/"); found {
		return "A path is not part of a name: all of a host may be reached, or nothing. " + writeHost(host)
	}
	if m := hostPort.FindStringSubmatch(text); m != nil {
		return "The port goes under ports. " + writeHostPort(m[1], m[2])
	}
	for _, r := range text {
		if r > 127 {
			return punycode(text)
		}
	}
	return ""
}

// punycode proposes the ASCII form of an international name, which is what stands in DNS and TLS.
func punycode(text string) string {
	const what = "Names stand in DNS and TLS in their ASCII form. "
	name, wildcard := strings.CutPrefix(text, "*.")
	ascii, err := idna.Lookup.ToASCII(name)
	switch {
	case err != nil:
		return what + `Write it so ("xn--...").`
	case wildcard:
		ascii = "*." + ascii
	}
	return what + writeHost(ascii)
}

// writeHost proposes a host, or says what is wrong with that one, too.
func writeHost(host string) string {
	if wrong := hostName(host); wrong != "" {
		return wrong
	}
	return write(host)
}

// writeHostPort is writeHost for a host and a port.
func writeHostPort(host, port string) string {
	number, err := strconv.ParseUint(port, 10, 16)
	wrong := hostName(host)
	wildcard := strings.HasPrefix(host, "*")
	switch {
	case wrong != "":
		return wrong
	case err != nil || number == 0:
		return "It is a number from 1 to 65535."
	case wildcard && number != 80 && number != 443:
		return "Other ports than 80 and 443 need an exact name."
	case wildcard: // without quotes, YAML takes it for an alias
		host = diagnostic.Quote(host)
	}
	return fmt.Sprintf("Write {host: %s, ports: [%d]}.", host, number)
}

// whole is the range of one address, in a form that may stand in a file.
func whole(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	return netip.PrefixFrom(addr, addr.BitLen())
}

// cidr checks a range of addresses.
func cidr(text string) string {
	prefix, err := netip.ParsePrefix(text)
	if addr, addrErr := netip.ParseAddr(text); err != nil && addrErr == nil {
		return "A single address has all its bits. " + write(whole(addr).String())
	}
	switch {
	case err != nil:
		return `Write an address, "/", and how many of its bits count: "203.0.113.0/24", "2001:db8::/32".`
	case prefix.Addr().Is4In6():
		return "It is an IPv4 address in IPv6's clothes. Write it as IPv4."
	case prefix.Masked() != prefix:
		return fmt.Sprintf("Bits behind the first %d are set. ", prefix.Bits()) + write(prefix.Masked().String())
	}
	return ""
}
