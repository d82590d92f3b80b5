package render

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/schema"
)

// The egress gateway is how a fleet's sandboxes reach hosts by name: they reach nothing but it (and what their list has
// of addresses), it is their DNS, and answers with its own address. It is also what their gate asks. So each fleet that
// has sandboxes or pools has one, and all its pods use it, whether or not an allowlist names a host: host names can come
// to a running sandbox and go, though what a pod's DNS is cannot change while it runs.
const (
	GatewayComponent = "egress-gateway" // the value of ComponentLabel
	// GatewayConfigKey is the key of the gateway's ConfigMap that holds a GatewayConfig as JSON.
	GatewayConfigKey = "egress.json"
	// GatewayName is the name by which a sandbox finds the gateway, as for HTTPS_PROXY. ICANN keeps "internal" for this.
	GatewayName = "egress-gateway.internal"
	// UnknownAddress stands where the address of the gateway's Service will, until the Service is there.
	UnknownAddress = "0.0.0.0"
)

// The ports that the gateway listens on in its pod. They need no privilege; its Service has them where clients expect
// them, and NetworkPolicy goes by these.
const (
	DNSPort    = 8053 // 53
	HTTPPort   = 8080 // 80
	TLSPort    = 8443 // 443
	ProxyPort  = 8128 // 3128, CONNECT and plain HTTP
	HelloPort  = 8600 // every sandbox may reach it
	CanaryPort = 8601 // no sandbox may
	AdminPort  = 9090 // health and metrics; not in the Service

	// The ports of what is forwarded, one for each host and port that is neither HTTP nor HTTPS.
	firstForward, forwards = 20000, 10000
)

// proxyServicePort is the customary port of an HTTP proxy.
const proxyServicePort = 3128

// GatewayConfig is what a gateway needs to know of its fleet.
type GatewayConfig struct {
	Fleet string `json:"fleet"`
	// Lists are the allowlists by the value of EgressLabel.
	Lists map[string]GatewayList `json:"lists"`
	// Forwards are listeners with one fixed destination.
	Forwards []Forward `json:"forwards"`
}

// GatewayList is what of an allowlist concerns the gateway.
type GatewayList struct {
	Hosts []schema.EgressRule `json:"hosts"`
	// DNS: any name of the cluster's own DNS may be asked for.
	DNS bool `json:"dns,omitzero"`
}

// Forward is a port of a host that is forwarded without a look at what is said on it.
type Forward struct {
	Host string `json:"host"`
	Port int32  `json:"port"`
	// Listen is the port in the gateway's pod, Service the name of the Service whose address stands for the host.
	Listen  int32  `json:"listen"`
	Service string `json:"service"`
}

// gateway is a fleet's gateway, before it is rendered.
type gateway struct {
	config GatewayConfig
}

// newGateway returns the fleet's gateway, which knows no list yet; nil where nothing would use it.
func (r *renderer) newGateway() *gateway {
	if r.fleet.Egress.Mode != schema.Gateway || !HasGate(r.fleet) && !r.namesHost() {
		return nil
	}
	return &gateway{config: GatewayConfig{Fleet: r.fleet.Name, Lists: make(map[string]GatewayList), Forwards: []Forward{}}}
}

// namesHost reports whether an allowlist of the file names a host.
func (r *renderer) namesHost() bool {
	for allow := range r.allowlists() {
		if slices.ContainsFunc(allow, func(rule schema.EgressRule) bool { return rule.Host != "" }) {
			return true
		}
	}
	return false
}

// learn takes note of all allowlists.
func (g *gateway) learn(r *renderer) {
	for allow := range r.allowlists() {
		g.note(allow)
	}
	g.forward(r)
}

// note takes note of an allowlist.
func (g *gateway) note(allow []schema.EgressRule) {
	id, rules := canonicalRules(allow)
	if id == "" {
		return
	}
	list := GatewayList{Hosts: []schema.EgressRule{}}
	for _, rule := range rules {
		list.DNS = list.DNS || rule.Preset == schema.DNS
		if rule.Host != "" {
			list.Hosts = append(list.Hosts, rule)
		}
	}
	if list.DNS || len(list.Hosts) > 0 {
		g.config.Lists[id] = list
	}
}

// byName reports whether the gateway learns from what is said on the port which host is meant.
func byName(port int32) bool { return port == 80 || port == 443 }

// forward gives each host's other ports a port to listen on. That follows from the host and the port, so that what is
// added moves what is there only where two want the same one: the first by name has it.
func (g *gateway) forward(r *renderer) {
	wanted := make(map[Forward]bool)
	for _, list := range g.config.Lists {
		for _, rule := range list.Hosts {
			for _, port := range rule.Ports {
				if !byName(port) && !strings.HasPrefix(rule.Host, "*") {
					wanted[Forward{Host: rule.Host, Port: port, Service: r.own("egress-"+digest(rule.Host), true)}] = true
				}
			}
		}
	}
	taken := make(map[int32]bool)
	for _, f := range slices.SortedFunc(maps.Keys(wanted), func(a, b Forward) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Port, b.Port))
	}) {
		hash := fnv.New32a()
		fmt.Fprintf(hash, "%s:%d", f.Host, f.Port)
		offset := hash.Sum32() % forwards
		for f.Listen = firstForward + int32(offset); taken[f.Listen]; {
			offset = (offset + 1) % forwards
			f.Listen = firstForward + int32(offset)
		}
		taken[f.Listen] = true
		g.config.Forwards = append(g.config.Forwards, f)
	}
}

// toGateway returns the rules that let pods with that allowlist at the ports of the gateway that they need.
func (r *renderer) toGateway(rules []schema.EgressRule) []networkingv1.NetworkPolicyEgressRule {
	if r.gateway == nil {
		return nil
	}
	tcp := make(map[int32]bool)
	dns := false
	for _, rule := range rules {
		dns = dns || rule.Preset == schema.DNS || rule.Host != ""
		for _, port := range rule.Ports {
			switch {
			case rule.Host == "":
				continue
			case port == 80:
				tcp[HTTPPort] = true
			case port == 443:
				tcp[TLSPort] = true
			}
			tcp[ProxyPort] = true
			for _, f := range r.gateway.config.Forwards {
				if f.Host == rule.Host && f.Port == port {
					tcp[f.Listen] = true
				}
			}
		}
	}
	if !dns {
		return nil
	}
	tcp[DNSPort] = true
	allowed := append(ports(corev1.ProtocolUDP, DNSPort), ports(corev1.ProtocolTCP, slices.Sorted(maps.Keys(tcp))...)...)
	return []networkingv1.NetworkPolicyEgressRule{{To: []networkingv1.NetworkPolicyPeer{r.gatewayPods()}, Ports: allowed}}
}

func (r *renderer) gatewayLabels() map[string]string {
	return map[string]string{FleetLabel: labelValue(r.fleet.Name), ComponentLabel: GatewayComponent}
}

func (r *renderer) gatewayPods() networkingv1.NetworkPolicyPeer {
	return networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: r.gatewayLabels()}}
}

// GatewayService returns the name of the Service whose address is the gateway's.
func GatewayService(fleet *schema.Fleet) string { return GatewayComponent + "-" + fleet.Name }

// dns makes the gateway the pod's DNS. A packet that is lost costs two seconds, and
// not five, as resolv.conf(5) has it; the ten that it tries for stay.
func (r *renderer) dns(spec *corev1.PodSpec) {
	if r.gateway == nil {
		return
	}
	spec.DNSPolicy = corev1.DNSNone
	spec.DNSConfig = &corev1.PodDNSConfig{
		Nameservers: []string{UnknownAddress},
		Options:     []corev1.PodDNSConfigOption{{Name: "timeout", Value: new("2")}, {Name: "attempts", Value: new("5")}},
	}
}

// ServiceAddress returns the address of a Service; empty where it has none.
func ServiceAddress(service *unstructured.Unstructured) string {
	if service == nil {
		return ""
	}
	address, _, _ := unstructured.NestedString(service.Object, "spec", "clusterIP")
	if address == corev1.ClusterIPNone {
		return ""
	}
	return address
}

// NeedsGateway reports whether the object waits for the gateway's address.
func NeedsGateway(object *unstructured.Unstructured) bool {
	if object == nil || object.GetKind() != "Pod" {
		return false
	}
	servers, _, _ := unstructured.NestedStringSlice(object.Object, "spec", "dnsConfig", "nameservers")
	return slices.Equal(servers, []string{UnknownAddress})
}

// FillGateway returns the object with the gateway's address, if it waits for that; it is then another object, which
// shares with the first what lies below its metadata and its spec: see podPart.withClaim.
func FillGateway(object *unstructured.Unstructured, address string) *unstructured.Unstructured {
	if !NeedsGateway(object) {
		return object
	}
	filled := maps.Clone(object.Object)
	for _, part := range []string{"metadata", "spec"} {
		filled[part] = maps.Clone(filled[part].(map[string]any)) // a pod has both
	}
	dns := maps.Clone(filled["spec"].(map[string]any)["dnsConfig"].(map[string]any))
	dns["nameservers"] = []any{address}
	filled["spec"].(map[string]any)["dnsConfig"] = dns
	return &unstructured.Unstructured{Object: filled}
}

// AtGateway returns the fleet's objects with the gateway's address in those that wait for it, and with pin in the
// gateway's Service, which then has that address or none.
func AtGateway(fleet *schema.Fleet, objects []Object, address string, pin bool) []Object {
	objects = slices.Clone(objects)
	for i, object := range objects {
		objects[i].Object = FillGateway(object.Object, address)
		objects[i].Adopted = FillGateway(object.Adopted, address)
		if pin && object.Object.GetKind() == "Service" && object.Object.GetName() == GatewayService(fleet) {
			objects[i].Object = object.Object.DeepCopy()
			_ = unstructured.SetNestedField(objects[i].Object.Object, address, "spec", "clusterIP") // its spec is there
		}
	}
	return objects
}
