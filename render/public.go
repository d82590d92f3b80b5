package render

import (
	"net/netip"
	"slices"

	"github.com/agentpane/sandboxctl/schema"
)

// publicRange is addresses that the presets public-* allow, and what of them they leave out.
type publicRange struct {
	cidr   string
	except []string
}

// publicRanges returns the addresses that anybody on the internet can have. Everything else may lead to the cluster, to
// its nodes and their metadata service, or to the network around it. The sources are the registries of special-purpose
// addresses of IANA (RFC 6890) and what is named beside each range.
//
// Not left out are the documentation ranges, such as 198.51.100.0/24 (RFC 5737): nobody has them, and tests of egress
// need addresses that count as public and never are.
func publicRanges() []publicRange {
	return withoutMetadata([]publicRange{
		{"0.0.0.0/0", []string{
			"0.0.0.0/8",      // this network: RFC 791
			"10.0.0.0/8",     // private: RFC 1918
			"100.64.0.0/10",  // carrier-grade NAT: RFC 6598
			"127.0.0.0/8",    // loopback: RFC 1122
			"169.254.0.0/16", // link-local, and nearly all metadata services: RFC 3927
			"172.16.0.0/12",  // private: RFC 1918
			"192.0.0.0/24",   // protocol assignments: RFC 6890
			"192.88.99.0/24", // relays to 6to4, deprecated: RFC 7526
			"192.168.0.0/16", // private: RFC 1918
			"198.18.0.0/15",  // benchmarks: RFC 2544
			"224.0.0.0/4",    // multicast: RFC 5771
			"240.0.0.0/4",    // reserved, and broadcast: RFC 1112, RFC 919
		}},
		// All global unicast addresses are out of this one (RFC 4291, and IANA's registry of them), so that loopback,
		// ::ffff:0:0/96, NAT64 64:ff9b::/96, unique local fc00::/7 with the metadata services of AWS and Google,
		// link-local fe80::/10 and multicast ff00::/8 are left out without being named.
		{"2000::/3", []string{
			"2001::/23", // protocol assignments, and Teredo, which carries IPv4: RFC 2928, RFC 4380
			"2002::/16", // 6to4, which carries IPv4: RFC 3056
		}},
	})
}

// internalRanges returns the addresses that a host may have beside public ones where the file says that it is internal:
// the private ones, but not those of them that are known to be a cloud's metadata service.
func internalRanges() []publicRange {
	return withoutMetadata([]publicRange{{cidr: "10.0.0.0/8"}, {cidr: "100.64.0.0/10"}, {cidr: "172.16.0.0/12"}, {cidr: "192.168.0.0/16"}, {cidr: "fc00::/7"}})
}

// withoutMetadata has the ranges leave out the metadata services that they do not leave out already.
func withoutMetadata(ranges []publicRange) []publicRange {
	for i := range ranges {
		r := &ranges[i]
		for _, address := range schema.MetadataAddresses() {
			if parsed([]publicRange{*r}).Contain(address) {
				r.except = append(r.except, netip.PrefixFrom(address, address.BitLen()).String())
			}
		}
		slices.SortFunc(r.except, func(a, b string) int { return netip.MustParsePrefix(a).Addr().Compare(netip.MustParsePrefix(b).Addr()) })
	}
	return ranges
}

// Addresses are the addresses that connections may lead to.
type Addresses struct {
	ranges []parsedRange
}

type parsedRange struct {
	whole  netip.Prefix
	except []netip.Prefix
}

// PublicAddresses returns what the presets public-* allow, and InternalAddresses what a host that is internal may have
// in addition.
func PublicAddresses() Addresses { return parsed(publicRanges()) }

// InternalAddresses: see PublicAddresses.
func InternalAddresses() Addresses { return parsed(internalRanges()) }

func parsed(ranges []publicRange) Addresses {
	var all Addresses
	for _, r := range ranges {
		one := parsedRange{whole: netip.MustParsePrefix(r.cidr)}
		for _, except := range r.except {
			one.except = append(one.except, netip.MustParsePrefix(except))
		}
		all.ranges = append(all.ranges, one)
	}
	return all
}

// Contain reports whether the address is one of them. An IPv4 address in IPv6's clothes, or with a zone, never is.
func (a Addresses) Contain(address netip.Addr) bool {
	in := func(p netip.Prefix) bool { return p.Contains(address) }
	return slices.ContainsFunc(a.ranges, func(r parsedRange) bool {
		return in(r.whole) && !slices.ContainsFunc(r.except, in)
	})
}
