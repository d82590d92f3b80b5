package render

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

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
	if !HasGate(r.fleet) {
		return
	}
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
	resources := r.ownResources("100m", "128Mi", "2", "512Mi")
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
			// Near its limit it collects its garbage more often, where it would grow until the kernel ends it.
			Env:             []corev1.EnvVar{{Name: "GOMEMLIMIT", Value: strconv.FormatInt(resources.Limits.Memory().Value()/10*9, 10)}},
			Resources:       resources,
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
