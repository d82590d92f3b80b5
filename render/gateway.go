package render

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/agentpane/sandboxctl/schema"
)

// The egress gateway is how a fleet's sandboxes reach hosts by name: they reach nothing but it (and what their list has
// of addresses), it is their DNS, and answers with its own address. It is rendered where an allowlist of the file names
// a host, and then for all pods of the fleet, so that host names can come to a running sandbox and go: what a pod's DNS
// is cannot change while it runs.
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

// newGateway returns the fleet's gateway; nil where no allowlist of the file names a host.
func (r *renderer) newGateway() *gateway {
	if r.fleet.Egress.Mode != schema.Gateway {
		return nil
	}
	g := &gateway{config: GatewayConfig{Fleet: r.fleet.Name, Lists: make(map[string]GatewayList), Forwards: []Forward{}}}
	named := false
	for path, allow := range r.allowlists() {
		named = g.note(r, allow, path...) || named
	}
	if !named {
		return nil
	}
	g.forward(r)
	return g
}

// note takes note of an allowlist, and reports whether it names a host.
func (g *gateway) note(r *renderer, allow []schema.EgressRule, at ...any) (named bool) {
	for i, rule := range allow {
		named = named || rule.Host != ""
		other := slices.ContainsFunc(rule.Ports, func(port int32) bool { return !byName(port) })
		if strings.HasPrefix(rule.Host, "*.") && other {
			r.report("Only ports 80 and 443 can be allowed below a name",
				"On other ports nothing says which host is meant. Name each host, with its ports.", append(slices.Clone(at), "allow", i, "ports")...)
		}
	}
	id, rules := canonicalRules(allow)
	if id == "" {
		return named
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
	return named
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

// dns makes the gateway the pod's DNS.
func (r *renderer) dns(spec *corev1.PodSpec) {
	if r.gateway == nil {
		return
	}
	spec.DNSPolicy = corev1.DNSNone
	spec.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{UnknownAddress}}
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

// FillGateway returns the object with the gateway's address, if it waits for that; it is then a copy.
func FillGateway(object *unstructured.Unstructured, address string) *unstructured.Unstructured {
	if !NeedsGateway(object) {
		return object
	}
	object = object.DeepCopy()
	_ = unstructured.SetNestedStringSlice(object.Object, []string{address}, "spec", "dnsConfig", "nameservers") // it is there
	return object
}

// gatewayImage is what the gateway and the gate run.
func (r *renderer) gatewayImage() string { return cmp.Or(r.fleet.Egress.Image, GatewayImage()) }

// GatewayImage returns the image of this program: of this very version, where this is a release.
func GatewayImage() string {
	tag := "dev"
	if build, ok := debug.ReadBuildInfo(); ok && regexp.MustCompile(`^v\d+\.\d+\.\d+$`).MatchString(build.Main.Version) {
		tag = build.Main.Version
	}
	return "docker.io/agentpane/sandboxctl:" + tag
}

// ownResources returns requests and limits of a container of ours, within the bounds that the file sets to all.
func (r *renderer) ownResources(cpu, memory, cpuLimit, memoryLimit string) corev1.ResourceRequirements {
	within := func(text string, least, most resource.Quantity) resource.Quantity {
		q := resource.MustParse(text)
		if !least.IsZero() && q.Cmp(least) < 0 {
			q = least
		}
		if !most.IsZero() && q.Cmp(most) > 0 {
			q = most
		}
		return q
	}
	l := &r.fleet.Limits
	return corev1.ResourceRequirements{
		Requests: corev1.ResourceList{
			corev1.ResourceCPU: within(cpu, l.Min.CPU, l.Max.CPU), corev1.ResourceMemory: within(memory, l.Min.Memory, l.Max.Memory),
		},
		Limits: corev1.ResourceList{
			corev1.ResourceCPU: within(cpuLimit, l.Min.CPU, l.Max.CPU), corev1.ResourceMemory: within(memoryLimit, l.Min.Memory, l.Max.Memory),
		},
	}
}

func hardened() *corev1.SecurityContext {
	return &corev1.SecurityContext{
		AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
		Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
}

// gate puts a container before all others of a sandbox, which lets the pod go on once what must be blocked is. It comes
// after the file's patches, which cannot take it away.
func (r *renderer) gate(spec *corev1.PodSpec) {
	if r.gateway == nil {
		return
	}
	gate := corev1.Container{
		Name:            GateName,
		Image:           r.gatewayImage(),
		ImagePullPolicy: corev1.PullIfNotPresent,
		// It finds the gateway where the pod's DNS is.
		Args:            []string{"egress-gate", fmt.Sprintf("--hello=%d", HelloPort), fmt.Sprintf("--canary=%d", CanaryPort)},
		Resources:       r.ownResources("10m", "16Mi", "200m", "64Mi"),
		SecurityContext: hardened(),
	}
	spec.InitContainers = append([]corev1.Container{gate}, spec.InitContainers...)
}

// GateName is the name of the container that a sandbox's pod begins with where the fleet has a gateway.
const GateName = "egress-gate"

// renderGateway renders the gateway itself.
func (r *renderer) renderGateway() error {
	if r.gateway == nil {
		return nil
	}
	config, err := json.Marshal(r.gateway.config)
	if err != nil {
		return err
	}
	name := GatewayService(r.fleet)
	labels := func() map[string]string { return map[string]string{ComponentLabel: GatewayComponent} }
	configMap := newObject("ConfigMap", name, labels())
	configMap.Object["data"] = map[string]any{GatewayConfigKey: string(config)}
	r.add(configMap, "egress")
	r.add(newObject("ServiceAccount", name, labels()), "egress")
	r.gatewayRole(name, labels)
	r.gatewayServices(name, labels)
	r.gatewayPolicies(name)
	deployment := newObject("Deployment", name, labels())
	deployment.Object["spec"] = r.gatewayDeployment(name)
	r.add(deployment, "egress")
	return nil
}

// gatewayRole lets the gateway see who its clients are, where it is, and what is allowed; nothing else.
func (r *renderer) gatewayRole(name string, labels func() map[string]string) {
	role := newObject("Role", name, labels())
	role.Object["rules"] = []any{
		map[string]any{"apiGroups": []any{""}, "resources": []any{"pods", "services"}, "verbs": []any{"list", "watch"}},
		map[string]any{"apiGroups": []any{""}, "resources": []any{"configmaps"}, "resourceNames": []any{name}, "verbs": []any{"list", "watch"}},
	}
	r.add(role, "egress")
	binding := newObject("RoleBinding", name, labels())
	binding.Object["roleRef"] = map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
	binding.Object["subjects"] = []any{map[string]any{"kind": "ServiceAccount", "name": name, "namespace": r.fleet.Namespace}}
	r.add(binding, "egress")
}

// gatewayServices renders the gateway's address, and one more for each host that has other ports than HTTP's: on those,
// nothing but the address says which host is meant.
func (r *renderer) gatewayServices(name string, labels func() map[string]string) {
	port := func(name string, protocol corev1.Protocol, number, target int32) corev1.ServicePort {
		return corev1.ServicePort{Name: name, Protocol: protocol, Port: number, TargetPort: intstr.FromInt32(target)}
	}
	byName := []corev1.ServicePort{port("http", corev1.ProtocolTCP, 80, HTTPPort), port("https", corev1.ProtocolTCP, 443, TLSPort)}
	all := map[string][]corev1.ServicePort{name: append(slices.Clone(byName),
		port("dns", corev1.ProtocolUDP, 53, DNSPort), port("dns-tcp", corev1.ProtocolTCP, 53, DNSPort),
		port("proxy", corev1.ProtocolTCP, proxyServicePort, ProxyPort),
		port("hello", corev1.ProtocolTCP, HelloPort, HelloPort), port("canary", corev1.ProtocolTCP, CanaryPort, CanaryPort),
	)}
	for _, f := range r.gateway.config.Forwards {
		if all[f.Service] == nil {
			all[f.Service] = slices.Clone(byName)
		}
		all[f.Service] = append(all[f.Service], port(fmt.Sprintf("tcp-%d", f.Port), corev1.ProtocolTCP, f.Port, f.Listen))
	}
	for _, service := range slices.Sorted(maps.Keys(all)) {
		object := newObject("Service", service, labels())
		object.Object["spec"] = content(&corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, Selector: r.gatewayLabels(), Ports: all[service],
			IPFamilyPolicy: new(corev1.IPFamilyPolicySingleStack),
		})
		r.add(object, "egress")
	}
}

// apiServerPorts are where API servers listen. Which addresses they have is not known here, and network plugins do not
// agree on what selects them.
func apiServerPorts() []int32 { return []int32{443, 6443, 8443, 16443} }

// gatewayPolicies bar the gateway from whatever it is not there for, and let the fleet's sandboxes say hello to it. That
// its canary is open as far as it itself is concerned is what makes the gate's test one of the sandbox's own policy.
func (r *renderer) gatewayPolicies(name string) {
	sandboxes := map[string]string{FleetLabel: labelValue(r.fleet.Name), SandboxLabel: "true"}
	inward := append(ports(corev1.ProtocolUDP, DNSPort), ports(corev1.ProtocolTCP, DNSPort, HTTPPort, TLSPort, ProxyPort, HelloPort, CanaryPort)...)
	tcp, first := corev1.ProtocolTCP, intstr.FromInt32(firstForward)
	inward = append(inward, networkingv1.NetworkPolicyPort{Protocol: &tcp, Port: &first, EndPort: new(int32(firstForward + forwards - 1))})
	outward := []networkingv1.NetworkPolicyEgressRule{dnsRule(), {Ports: ports(tcp, apiServerPorts()...)}}
	for internal, ranges := range [][]publicRange{publicRanges(), internalRanges()} {
		if used := r.gateway.ports(internal == 1); len(used) > 0 {
			rule := networkingv1.NetworkPolicyEgressRule{Ports: ports(tcp, used...)}
			for _, each := range ranges {
				rule.To = append(rule.To, block(each.cidr, each.except...))
			}
			outward = append(outward, rule)
		}
	}
	own := newObject("NetworkPolicy", name, map[string]string{PolicyTypeLabel: GatewayComponent})
	own.Object["spec"] = content(&networkingv1.NetworkPolicySpec{
		PodSelector: metav1.LabelSelector{MatchLabels: r.gatewayLabels()},
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
		Ingress: []networkingv1.NetworkPolicyIngressRule{
			{From: []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: sandboxes}}}, Ports: inward},
			{Ports: ports(tcp, AdminPort)}, // whoever collects metrics
		},
		Egress: outward,
	})
	r.add(own, "egress")

	hello := newObject("NetworkPolicy", r.own("sandbox-gate", true), map[string]string{PolicyTypeLabel: "gate"})
	hello.Object["spec"] = content(&networkingv1.NetworkPolicySpec{
		PodSelector: metav1.LabelSelector{MatchLabels: sandboxes},
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
		Egress: []networkingv1.NetworkPolicyEgressRule{{
			To: []networkingv1.NetworkPolicyPeer{r.gatewayPods()}, Ports: ports(tcp, HelloPort),
		}},
	})
	r.add(hello, "egress")
}

// ports returns the ports of hosts, or of those hosts only that are internal.
func (g *gateway) ports(internal bool) []int32 {
	used := make(map[int32]bool)
	for _, list := range g.config.Lists {
		for _, rule := range list.Hosts {
			for _, port := range rule.Ports {
				used[port] = used[port] || rule.Internal || !internal
			}
		}
	}
	maps.DeleteFunc(used, func(_ int32, wanted bool) bool { return !wanted })
	return slices.Sorted(maps.Keys(used))
}

// gatewayDeployment runs the gateway twice, so that one can go while the other serves.
func (r *renderer) gatewayDeployment(name string) map[string]any {
	labels := r.gatewayLabels()
	labels[ManagedLabel] = "true"
	spec := corev1.PodSpec{
		ServiceAccountName: name, AutomountServiceAccountToken: new(true), EnableServiceLinks: new(false),
		TerminationGracePeriodSeconds: new(int64(gatewayGrace)),
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot: new(true), RunAsUser: new(int64(userID)), RunAsGroup: new(int64(userID)),
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		TopologySpreadConstraints: []corev1.TopologySpreadConstraint{{
			MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.ScheduleAnyway,
			LabelSelector: &metav1.LabelSelector{MatchLabels: r.gatewayLabels()},
		}},
		Containers: []corev1.Container{{
			Name: GatewayComponent, Image: r.gatewayImage(), ImagePullPolicy: corev1.PullIfNotPresent,
			Args: []string{GatewayComponent, "--namespace=" + r.fleet.Namespace, "--fleet=" + r.fleet.Name},
			Ports: []corev1.ContainerPort{
				{Name: "admin", ContainerPort: AdminPort, Protocol: corev1.ProtocolTCP},
			},
			Resources:       r.ownResources("100m", "128Mi", "2", "512Mi"),
			SecurityContext: hardened(),
			ReadinessProbe: &corev1.Probe{
				ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/readyz", Port: intstr.FromInt32(AdminPort)}},
				PeriodSeconds: 2,
			},
			LivenessProbe: &corev1.Probe{
				ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(AdminPort)}},
				PeriodSeconds: 10, FailureThreshold: 3,
			},
		}},
	}
	return map[string]any{
		"replicas": int64(gatewayReplicas),
		"selector": map[string]any{"matchLabels": anyMap(r.gatewayLabels())},
		// A new one serves before an old one goes.
		"strategy": map[string]any{"type": "RollingUpdate", "rollingUpdate": map[string]any{"maxSurge": int64(1), "maxUnavailable": int64(0)}},
		"template": map[string]any{"metadata": map[string]any{"labels": anyMap(labels)}, "spec": content(&spec)},
	}
}

const (
	gatewayReplicas = 2
	// gatewayGrace is how long, in seconds, connections have to end by themselves when a gateway goes.
	gatewayGrace = 30
)

func anyMap(labels map[string]string) map[string]any {
	values := make(map[string]any)
	for key, value := range labels {
		values[key] = value
	}
	return values
}
