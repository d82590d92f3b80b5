package render

import (
	"slices"
	"strconv"
	"strings"

	"github.com/agentpane/sandboxctl/schema"
	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

// checkCilium says what of the file Cilium does not do that the gateway does.
func (r *renderer) checkCilium() {
	if r.fleet.Egress.Mode == schema.Cilium && r.namesHost() {
		r.report("Cilium does not refuse private addresses",
			"With egress.mode: cilium, a host that is allowed is reached wherever its name leads: to a private, link-local or metadata address too.",
			"egress", "mode").Severity = diagnostic.Warning
	}
}

// ciliumAllowlist renders what of an allowlist only Cilium's own policy can say: hosts by name (toFQDNs), and DNS for these
// names and no others, by which Cilium learns their addresses. That is in place of the gateway. Unlike the gateway, Cilium
// does not refuse a name that leads to a private address.
func (r *renderer) ciliumAllowlist(id string, rules []schema.EgressRule, path string) {
	rules = slices.DeleteFunc(slices.Clone(rules), func(rule schema.EgressRule) bool { return rule.Host == "" })
	if r.fleet.Egress.Mode != schema.Cilium || len(rules) == 0 {
		return
	}
	var names []any
	egress := []any{nil} // the first is DNS
	for _, rule := range rules {
		name := map[string]any{"matchName": rule.Host}
		if below, wildcard := strings.CutPrefix(rule.Host, "*."); wildcard {
			name = map[string]any{"matchPattern": "**." + below} // at any depth: docs.cilium.io, "DNS based"
		}
		names = append(names, name)
		egress = append(egress, map[string]any{"toFQDNs": []any{name}, "toPorts": []any{map[string]any{"ports": ciliumPorts("TCP", rule.Ports...)}}})
	}
	egress[0] = map[string]any{
		"toEndpoints": []any{map[string]any{"matchLabels": map[string]any{
			"k8s:io.kubernetes.pod.namespace": "kube-system", "k8s:k8s-app": "kube-dns",
		}}},
		"toPorts": []any{map[string]any{"ports": ciliumPorts("ANY", 53), "rules": map[string]any{"dns": names}}},
	}
	policy := newObject("CiliumNetworkPolicy", r.own(allowlistPrefix+id, true), map[string]string{PolicyTypeLabel: "sandbox"})
	policy.Object["spec"] = map[string]any{
		"endpointSelector": map[string]any{"matchLabels": map[string]any{
			"k8s:" + FleetLabel: labelValue(r.fleet.Name), "k8s:" + EgressLabel: id,
		}},
		"egress": egress,
	}
	r.add(policy, path)
}

func ciliumPorts(protocol string, numbers ...int32) []any {
	var list []any
	for _, number := range numbers {
		list = append(list, map[string]any{"port": strconv.Itoa(int(number)), "protocol": protocol})
	}
	return list
}
