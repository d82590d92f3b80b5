package render_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/mattfenwick/cyclonus/pkg/matcher"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// TestPoliciesAreTheAllowlists: for 10,000 random pairs of an allowlist and a flow, the rendered policies allow the flow,
// by the verdict of an independent matcher, exactly when the list says so, by what a list means said in another way.
func TestPoliciesAreTheAllowlists(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const lists, flows = 200, 60
	allowed, pairs := 0, 0
	for range lists {
		allow := randomList(random)
		fleet := load(t, fmt.Appendf(nil, "apiVersion: agentpane.io/v1alpha1\nkind: SandboxFleet\nname: team-a\n"+
			"sandboxes: {a: {image: 'x:1', egress: {allow: [%s]}}}", strings.Join(allow, ", ")))
		var all []*networkingv1.NetworkPolicy
		rendered := policies(t, fleet)
		for _, name := range slices.Sorted(maps.Keys(rendered)) {
			all = append(all, rendered[name])
		}
		oracle := matcher.BuildNetworkPolicies(true, all)
		objects := objectsOf(t, fleet)
		pod := objects[slices.IndexFunc(objects, func(o render.Object) bool { return o.Object.GetKind() == "Pod" })].Object
		source := &matcher.TrafficPeer{IP: "10.244.0.9", Internal: &matcher.InternalPeer{
			PodLabels: pod.GetLabels(), Namespace: fleet.Namespace, NamespaceLabels: map[string]string{"kubernetes.io/metadata.name": fleet.Namespace},
		}}
		for range flows {
			f := randomFlow(random, fleet)
			got := oracle.IsTrafficAllowed(&matcher.Traffic{
				Source: source, Destination: f.to, ResolvedPort: f.port, Protocol: f.protocol,
			}).IsAllowed()
			want := f.allowedBy(fleet)
			pairs++
			if got {
				allowed++
			}
			if got != want {
				t.Errorf("[%s]: %s: the policies say %v, the list %v", strings.Join(allow, ", "), f, got, want)
			}
		}
	}
	if pairs < 10_000 || allowed < pairs/50 {
		t.Errorf("%d of %d flows are allowed: that says little", allowed, pairs)
	}
}

var (
	somePorts = []int{22, 53, 80, 443, 5432, 8053, 8080, 8128, 8443, 8600, 8601, 9090, 20000, 25000}
	someCIDRs = []string{"203.0.113.0/24", "10.0.0.0/8", "0.0.0.0/0", "198.51.100.10/32", "2001:db8::/32", "169.254.0.0/16"}
	someHosts = []string{"github.com", "gitlab.com", "*.example.org"}
	addresses = []string{"203.0.113.7", "203.0.114.7", "10.1.2.3", "198.51.100.10", "198.51.100.11", "169.254.169.254", "169.254.20.10",
		"100.100.100.200", "2001:db8::1", "2a00:1450::1", "fd00:ec2::254", "fe80::1", "192.168.1.1", "1.1.1.1", "127.0.0.1"}
)

func randomList(random *rand.Rand) []string {
	var list []string
	for range random.IntN(4) {
		var entry string
		switch random.IntN(3) {
		case 0:
			entry = "{preset: " + []string{"dns", "public-https", "public-http", "public-ssh"}[random.IntN(4)] + "}"
		case 1:
			entry = fmt.Sprintf("{cidr: '%s', ports: [%d]}", someCIDRs[random.IntN(len(someCIDRs))], somePorts[random.IntN(5)])
		default:
			host, port := someHosts[random.IntN(len(someHosts))], 443
			if !strings.HasPrefix(host, "*") {
				port = somePorts[random.IntN(5)]
			}
			entry = fmt.Sprintf("{host: '%s', ports: [%d]}", host, port)
		}
		target, _, _ := strings.Cut(entry, ",")
		if !slices.ContainsFunc(list, func(other string) bool { return strings.HasPrefix(other+",", strings.TrimSuffix(target, "}")) }) {
			list = append(list, entry)
		}
	}
	return list
}

// flow is one connection of the sandbox.
type flow struct {
	to       *matcher.TrafficPeer
	address  netip.Addr
	who      string // an address outside; "gateway", "dns" or "neighbour" inside
	port     int
	protocol corev1.Protocol
}

func (f flow) String() string {
	return fmt.Sprintf("%s %s:%d (%s)", f.protocol, f.address, f.port, f.who)
}

func randomFlow(random *rand.Rand, fleet *schema.Fleet) flow {
	f := flow{port: somePorts[random.IntN(len(somePorts))], protocol: corev1.ProtocolTCP}
	if random.IntN(4) == 0 {
		f.protocol = corev1.ProtocolUDP
	}
	inside := func(who, namespace string, labels map[string]string) {
		f.who, f.address = who, netip.MustParseAddr("10.244.0.5")
		f.to = &matcher.TrafficPeer{IP: f.address.String(), Internal: &matcher.InternalPeer{
			PodLabels: labels, Namespace: namespace, NamespaceLabels: map[string]string{"kubernetes.io/metadata.name": namespace},
		}}
	}
	switch random.IntN(6) {
	case 0, 1:
		inside("gateway", fleet.Namespace, map[string]string{render.FleetLabel: fleet.Name, render.ComponentLabel: render.GatewayComponent})
	case 2:
		inside("dns", "kube-system", map[string]string{"k8s-app": "kube-dns"})
	case 3:
		namespaces := []string{fleet.Namespace, "kube-system", "other"}
		inside("neighbour", namespaces[random.IntN(3)], map[string]string{"app": "x"})
	default:
		f.who, f.address = "outside", netip.MustParseAddr(addresses[random.IntN(len(addresses))])
		f.to = &matcher.TrafficPeer{IP: f.address.String()}
	}
	return f
}

// allowedBy says what the fleet's one allowlist means for the flow: what the sandbox may reach, and where that is the
// gateway, what that takes in.
func (f flow) allowedBy(fleet *schema.Fleet) bool {
	inward := slices.Contains([]int{8053, 8080, 8128, 8443, 8600, 8601, 9090}, f.port) || f.port >= 20000
	if f.who == "gateway" && (!inward || f.protocol == corev1.ProtocolUDP && f.port != 8053) {
		return false
	}
	return f.mayLeave(fleet.Sandboxes[0].Egress.Allow)
}

func (f flow) mayLeave(allow []schema.EgressRule) bool {
	tcp := f.protocol == corev1.ProtocolTCP
	for _, rule := range allow {
		within := rule.CIDR.IsValid() && rule.CIDR.Contains(f.address) && tcp && slices.Contains(rule.Ports, int32(f.port))
		public := render.PublicAddresses().Contain(f.address) && tcp
		switch {
		case within,
			rule.Preset == schema.PublicHTTPS && public && f.port == 443,
			rule.Preset == schema.PublicHTTP && public && f.port == 80,
			rule.Preset == schema.PublicSSH && public && f.port == 22,
			rule.Preset == schema.DNS && f.port == 53 && (f.who == "dns" || f.address.String() == "169.254.20.10"):
			return true
		}
		// Through the gateway: its DNS, and the ports that the rule's are behind.
		if f.who != "gateway" {
			continue
		}
		if f.port == 8053 && (rule.Host != "" || rule.Preset == schema.DNS) {
			return true
		}
		behind := f.port == 8128 || f.port == 8080 && slices.Contains(rule.Ports, 80) || f.port == 8443 && slices.Contains(rule.Ports, 443)
		if rule.Host != "" && tcp && behind {
			return true
		}
	}
	return f.who == "gateway" && tcp && f.port == 8600
}
