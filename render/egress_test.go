package render_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// policies returns the fleet's NetworkPolicies by name.
func policies(t *testing.T, fleet *schema.Fleet) map[string]*networkingv1.NetworkPolicy {
	t.Helper()
	objects, found := render.Objects(fleet)
	if found.HasErrors() {
		t.Fatal(found)
	}
	all := make(map[string]*networkingv1.NetworkPolicy)
	for _, object := range objects {
		if object.Object.GetKind() == "NetworkPolicy" {
			policy := new(networkingv1.NetworkPolicy)
			if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object.Object, policy, true); err != nil {
				t.Fatal(err)
			}
			all[policy.Name] = policy
		}
	}
	return all
}

// allowing returns a fleet of one sandbox with that allowlist.
func allowing(t *testing.T, allow string) *schema.Fleet {
	t.Helper()
	return load(t, fmt.Appendf(nil, "apiVersion: agentpane.io/v1alpha1\nkind: SandboxFleet\nname: team-a\n"+
		"sandboxes: {a: {image: 'x:1', egress: {allow: %s}}}", allow))
}

// allows reports whether the policy opens a TCP or UDP port of an address outside of the cluster.
func allows(t *testing.T, policy *networkingv1.NetworkPolicy, address string, protocol string, port int32) bool {
	t.Helper()
	to := netip.MustParseAddr(address)
	in := func(cidr string) bool {
		prefix, err := netip.ParsePrefix(cidr)
		if err != nil {
			t.Fatal(err)
		}
		return prefix.Contains(to)
	}
	return slices.ContainsFunc(policy.Spec.Egress, func(rule networkingv1.NetworkPolicyEgressRule) bool {
		return slices.ContainsFunc(rule.Ports, func(p networkingv1.NetworkPolicyPort) bool {
			return string(*p.Protocol) == protocol && p.Port.IntVal == port
		}) && slices.ContainsFunc(rule.To, func(peer networkingv1.NetworkPolicyPeer) bool {
			return peer.IPBlock != nil && in(peer.IPBlock.CIDR) && !slices.ContainsFunc(peer.IPBlock.Except, in)
		})
	})
}

// one returns the policy of the only allowlist.
func one(t *testing.T, fleet *schema.Fleet) *networkingv1.NetworkPolicy {
	t.Helper()
	all := policies(t, fleet)
	maps.DeleteFunc(all, func(name string, _ *networkingv1.NetworkPolicy) bool { _, ok := render.AllowlistID(name); return !ok })
	if len(all) != 1 {
		t.Fatalf("%d allowlists", len(all))
	}
	for _, policy := range all {
		return policy
	}
	return nil
}

// TestMetadataServicesAreLeftOut of all that a host may lead to, an internal one
// included.
func TestMetadataServicesAreLeftOut(t *testing.T) {
	public, internal := render.PublicAddresses(), render.InternalAddresses()
	for _, address := range schema.MetadataAddresses() {
		if public.Contain(address) || internal.Contain(address) {
			t.Errorf("a host may lead to %s", address)
		}
	}
}

func TestPublicIsNotPrivate(t *testing.T) {
	public := []string{
		"1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
		"140.82.121.4", "168.63.129.15", "168.63.129.17", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0",
		"192.0.1.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "198.51.100.10", "223.255.255.255",
		"2000::1", "2001:200::1", "2606:4700::1111", "2a00:1450:4001:80b::200e", "3ffe::1",
	}
	private := []string{
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "10.96.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "100.127.255.255",
		"127.0.0.1", "127.0.0.53", "168.63.129.16", "169.254.0.1", "169.254.20.10", "169.254.169.254", "169.254.170.2",
		"172.16.0.1", "172.31.255.255", "192.0.0.192", "192.88.99.1", "192.168.0.1", "192.168.255.255", "198.18.0.1",
		"198.19.255.255", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::10.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::1", "100::1",
		"2001::1", "2001:10::1", "2002:a00:1::1", "2002:a9fe:a9fe::1", "4000::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fd20:ce::254",
		"fe80::1", "fe80::a9fe:a9fe", "fec0::1", "ff02::1",
	}
	for preset, port := range map[string]int32{"public-https": 443, "public-http": 80, "public-ssh": 22} {
		policy := one(t, allowing(t, "[{preset: "+preset+"}]"))
		for _, address := range public {
			if !allows(t, policy, address, "TCP", port) {
				t.Errorf("%s does not allow %s", preset, address)
			}
			if allows(t, policy, address, "TCP", port+1) || allows(t, policy, address, "UDP", port) {
				t.Errorf("%s allows more than TCP %d", preset, port)
			}
		}
		for _, address := range private {
			if allows(t, policy, address, "TCP", port) {
				t.Errorf("%s allows %s", preset, address)
			}
		}
	}
}

// TestExceptionsAreValid: the API server refuses an exception that is not within its range.
func TestExceptionsAreValid(t *testing.T) {
	for _, rule := range one(t, allowing(t, "[{preset: public-https}]")).Spec.Egress {
		for _, peer := range rule.To {
			whole := netip.MustParsePrefix(peer.IPBlock.CIDR)
			for _, except := range peer.IPBlock.Except {
				part := netip.MustParsePrefix(except)
				if part != part.Masked() || !whole.Contains(part.Addr()) || part.Bits() <= whole.Bits() {
					t.Errorf("%s is no part of %s", part, whole)
				}
			}
		}
	}
}

func TestDNS(t *testing.T) {
	policy := one(t, allowing(t, "[{preset: dns}]"))
	for _, protocol := range []string{"TCP", "UDP"} {
		if !allows(t, policy, "169.254.20.10", protocol, 53) {
			t.Errorf("NodeLocal DNS is closed for %s", protocol)
		}
		for _, address := range []string{"169.254.20.11", "8.8.8.8", "10.96.0.10"} {
			if allows(t, policy, address, protocol, 53) {
				t.Errorf("%s is open for %s", address, protocol)
			}
		}
	}
	cluster := policy.Spec.Egress[0].To[0]
	if cluster.NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"] != "kube-system" || cluster.PodSelector.MatchLabels["k8s-app"] != "kube-dns" {
		t.Errorf("the cluster's DNS is %v", cluster)
	}
}

func TestCIDR(t *testing.T) {
	policy := one(t, allowing(t, "[{cidr: 10.1.0.0/16, ports: [5432, 22]}, {cidr: '2001:db8::/32'}]"))
	for _, c := range []struct {
		address, protocol string
		port              int32
		want              bool
	}{
		{"10.1.2.3", "TCP", 5432, true}, {"10.1.2.3", "TCP", 22, true}, {"10.1.2.3", "UDP", 22, false}, {"10.1.2.3", "TCP", 443, false},
		{"10.2.0.0", "TCP", 22, false}, {"2001:db8::1", "TCP", 443, true}, {"2001:db8::1", "TCP", 22, false}, {"2001:db9::1", "TCP", 443, false},
	} {
		if got := allows(t, policy, c.address, c.protocol, c.port); got != c.want {
			t.Errorf("%s %s %d: %v, want %v", c.address, c.protocol, c.port, got, c.want)
		}
	}
}

// TestEqualListsAreOnePolicy, however they are written, and other lists are others.
func TestEqualListsAreOnePolicy(t *testing.T) {
	lists := [][]string{
		{"[{preset: dns}, {cidr: 10.0.0.0/8, ports: [1, 2]}]", "[{cidr: 10.0.0.0/8, ports: [2, 1]}, {preset: dns}]"},
		{"[{preset: dns}, {cidr: 10.0.0.0/8, ports: [12]}]"},
		{"[{preset: dns}, {cidr: 10.0.0.0/9, ports: [1, 2]}]"},
		{"[{preset: dns}]"},
		{"[{preset: public-https}]"},
		{"[{preset: public-http}]"},
	}
	seen := make(map[string]string)
	for _, equal := range lists {
		name := one(t, allowing(t, equal[0])).Name
		if other, ok := seen[name]; ok {
			t.Errorf("%s and %s are both %s", other, equal[0], name)
		}
		seen[name] = equal[0]
		for _, list := range equal[1:] {
			if got := one(t, allowing(t, list)).Name; got != name {
				t.Errorf("%s is %s, and %s is %s", equal[0], name, list, got)
			}
		}
	}
}

// TestPoliciesCoverTheirOwnPods: each pod is under the policy that denies all, the gate's and the one of its own list;
// under no other list's and no other fleet's.
func TestPoliciesCoverTheirOwnPods(t *testing.T) {
	const file = `
apiVersion: agentpane.io/v1alpha1
kind: SandboxFleet
name: %s
sandboxes:
  closed: {image: "x:1", egress: {allow: []}}
  dns: {image: "x:1", egress: {allow: [{preset: dns}]}}
  web: {image: "x:1", egress: {allow: [{preset: public-https}]}}
  same: {image: "x:1", egress: {allow: [{preset: public-https}]}}
`
	all := make(map[string]*networkingv1.NetworkPolicy)
	var pods []render.Object
	for _, name := range []string{"team-a", "team-b"} {
		fleet := load(t, fmt.Appendf(nil, file, name))
		for policyName, policy := range policies(t, fleet) {
			all[policyName] = policy
		}
		objects, _ := render.Objects(fleet)
		pods = append(pods, slices.DeleteFunc(objects, func(o render.Object) bool { return o.Object.GetKind() != "Pod" })...)
	}
	if len(all) != 2*(2+3) || len(pods) != 8 {
		t.Fatalf("%d policies, %d pods", len(all), len(pods))
	}
	for _, pod := range pods {
		var got []string
		for name, policy := range all {
			selector, err := metav1.LabelSelectorAsSelector(&policy.Spec.PodSelector)
			if err != nil {
				t.Fatal(err)
			}
			if selector.Matches(labels.Set(pod.Object.GetLabels())) {
				got = append(got, name)
			}
		}
		slices.Sort(got)
		fleet := pod.Object.GetLabels()[render.FleetLabel]
		want := []string{"sandbox-default-deny-" + fleet}
		if id := pod.Object.GetLabels()[render.EgressLabel]; id != "" {
			want = append(want, "sandbox-egress-"+id+"-"+fleet)
		} else if !strings.Contains(pod.Path, "closed") {
			t.Errorf("%s of %s is under no list", pod.Path, fleet)
		}
		want = append(want, "sandbox-gate-"+fleet)
		if !slices.Equal(got, want) {
			t.Errorf("%s of %s is under %v, want %v", pod.Path, fleet, got, want)
		}
	}
}
