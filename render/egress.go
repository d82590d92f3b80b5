package render

import (
	"fmt"
	"iter"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/agentpane/sandboxctl/schema"
	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

// allowlist renders the policy that opens what a running sandbox may reach, if no other has the same list: there is
// one policy for each list, and not for each pod, as many policies are what breaks network plugins first.
func (r *renderer) allowlist(s *schema.Sandbox) {
	id, rules := canonicalRules(s.Egress.Allow)
	if id == "" || r.policies[id] || s.State == schema.Stopped {
		return
	}
	r.policies[id] = true
	policy := newObject("NetworkPolicy", r.own(allowlistPrefix+id, true), map[string]string{PolicyTypeLabel: "sandbox"})
	spec := networkingv1.NetworkPolicySpec{
		PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{
			FleetLabel: labelValue(r.fleet.Name), EgressLabel: id,
		}},
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
	}
	for _, rule := range rules {
		if rule.Host == "" {
			spec.Egress = append(spec.Egress, egressRule(rule))
		}
	}
	spec.Egress = append(spec.Egress, r.toGateway(rules)...)
	policy.Object["spec"] = content(&spec)
	path := diagnostic.Path(r.egressPath(s)...)
	r.add(policy, path)
	r.ciliumAllowlist(id, rules, path)
}

const allowlistPrefix = "sandbox-egress-"

// AllowlistID returns the id of the list that a policy opens, by the policy's name, which pods under it carry as
// EgressLabel; false for another policy.
func AllowlistID(policy string) (id string, ok bool) {
	id, ok = strings.CutPrefix(policy, allowlistPrefix)
	id, _, _ = strings.Cut(id, "-")
	return id, ok
}

// egressPath returns the entry that the sandbox's allowlist in effect is from: its own, its template's or the fleet's.
func (r *renderer) egressPath(s *schema.Sandbox) []any {
	inherited, from := r.fleet.Egress.Allow, []any{"egress"}
	if t, ok := r.fleet.Template(s.Template); ok {
		if !sameList(t.Egress.Allow, inherited) {
			from = []any{"templates", t.Name, "egress"}
		}
		inherited = t.Egress.Allow
	}
	if !sameList(s.Egress.Allow, inherited) {
		from = []any{"sandboxes", s.Name, "egress"}
	}
	return from
}

// allowlists yields each allowlist in effect: the fleet's, and those of templates and sandboxes, inherited ones included.
func (r *renderer) allowlists() iter.Seq[[]schema.EgressRule] {
	return func(yield func([]schema.EgressRule) bool) {
		if !yield(r.fleet.Egress.Allow) {
			return
		}
		for _, t := range r.fleet.Templates {
			if !yield(t.Egress.Allow) {
				return
			}
		}
		for i := range r.fleet.Sandboxes {
			if !yield(r.fleet.Sandboxes[i].Egress.Allow) {
				return
			}
		}
	}
}

// sameList reports whether a list was inherited: then it is the other one, and no copy of it.
func sameList(a, b []schema.EgressRule) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// canonicalRules returns the rules in the one order that equal lists have in common, and an id that follows from them; no id when there are none.
func canonicalRules(allow []schema.EgressRule) (id string, rules []schema.EgressRule) {
	byKey := make(map[string]schema.EgressRule)
	var keys []string
	for _, rule := range allow {
		rule.Ports = slices.Compact(slices.Sorted(slices.Values(rule.Ports)))
		key := string(rule.Preset)
		switch {
		case rule.CIDR.IsValid():
			rule.CIDR = rule.CIDR.Masked()
			key = fmt.Sprint(rule.CIDR, rule.Ports)
		case rule.Host != "":
			key = fmt.Sprint("host ", rule.Host, rule.Ports, rule.Internal)
		}
		byKey[key] = rule
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return "", nil
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	for _, key := range keys {
		rules = append(rules, byKey[key])
	}
	return digest(keys...), rules
}

func egressRule(rule schema.EgressRule) networkingv1.NetworkPolicyEgressRule {
	switch rule.Preset {
	case schema.DNS:
		return dnsRule()
	case schema.PublicHTTPS:
		return publicRule(443)
	case schema.PublicHTTP:
		return publicRule(80)
	case schema.PublicSSH:
		return publicRule(22)
	}
	return networkingv1.NetworkPolicyEgressRule{To: []networkingv1.NetworkPolicyPeer{block(rule.CIDR.String())}, Ports: ports(corev1.ProtocolTCP, rule.Ports...)}
}

// dnsRule allows the cluster's DNS and nothing that merely has its label in another namespace, and NodeLocal DNSCache,
// which is at this address of the node by default (k8s.io/docs/tasks/administer-cluster/nodelocaldns).
func dnsRule() networkingv1.NetworkPolicyEgressRule {
	return networkingv1.NetworkPolicyEgressRule{
		To: []networkingv1.NetworkPolicyPeer{
			{
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: metav1.NamespaceSystem}},
				PodSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"k8s-app": "kube-dns"}},
			},
			block("169.254.20.10/32"),
		},
		Ports: append(ports(corev1.ProtocolUDP, 53), ports(corev1.ProtocolTCP, 53)...),
	}
}

func publicRule(port int32) networkingv1.NetworkPolicyEgressRule {
	rule := networkingv1.NetworkPolicyEgressRule{Ports: ports(corev1.ProtocolTCP, port)}
	for _, public := range publicRanges() {
		rule.To = append(rule.To, block(public.cidr, public.except...))
	}
	return rule
}

func block(cidr string, except ...string) networkingv1.NetworkPolicyPeer {
	return networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: cidr, Except: except}}
}

func ports(protocol corev1.Protocol, numbers ...int32) []networkingv1.NetworkPolicyPort {
	var list []networkingv1.NetworkPolicyPort
	for _, number := range numbers {
		port := intstr.FromInt32(number)
		list = append(list, networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: &port})
	}
	return list
}
