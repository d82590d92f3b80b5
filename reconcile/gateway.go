package reconcile

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/reconcile/proof"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// GatewayRef is the Service of the fleet's egress gateway.
func GatewayRef(fleet *schema.Fleet) plan.Ref {
	return plan.Ref{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Service"),
		Namespace:        fleet.Namespace, Name: render.GatewayService(fleet),
	}
}

// resolveGateway puts the address of the fleet's gateway where it belongs. Where
// its Service is gone, it is the address that the fleet's pods still have: they
// are not replaced, and the Service is to be made with that address again.
func resolveGateway(fleet *schema.Fleet, objects []render.Object, seen Observation) []render.Object {
	address := render.ServiceAddress(seen.Gateway)
	pinned := false
	if address != "" {
		_, pinned, _ = unstructured.NestedString(proof.Owned(seen.Gateway, render.Manager), "spec", "clusterIP")
	} else {
		address = podsGateway(seen)
		pinned = address != ""
	}
	if address == "" {
		return objects
	}
	return render.AtGateway(fleet, objects, address, pinned)
}

// podsGateway is the address that the fleet's pods have of the gateway, which is
// their DNS; empty where there is no such pod.
func podsGateway(seen Observation) string {
	for ref, live := range seen.Inhabitants {
		if ref.Kind != "Pod" || live.GetLabels()[render.SandboxLabel] != "true" && live.GetLabels()[render.WarmPoolLabel] != "true" {
			continue
		}
		policy, _, _ := unstructured.NestedString(live.Object, "spec", "dnsPolicy")
		servers, _, _ := unstructured.NestedStringSlice(live.Object, "spec", "dnsConfig", "nameservers")
		if policy == string(corev1.DNSNone) && len(servers) == 1 {
			return servers[0]
		}
	}
	return ""
}

// withGateway gives the pods of a wave the address of the fleet's gateway, if
// they still wait for it: its Service was made in an earlier wave, and the
// server has chosen the address then. Everything else about them is as planned.
func (r *Reconciler) withGateway(ctx context.Context, fleet *schema.Fleet, wave []plan.Change) ([]plan.Change, error) {
	address := ""
	filled := make([]plan.Change, len(wave))
	for i, change := range wave {
		filled[i] = change
		if !render.NeedsGateway(change.Desired) {
			continue
		}
		if address == "" {
			ref := GatewayRef(fleet)
			service, err := r.get(ctx, ref)
			if err != nil {
				return nil, err
			}
			if address = render.ServiceAddress(service); address == "" {
				return nil, failure.New(failure.PodCreationFailed, about(ref), "the Service %s of the egress gateway has no address", ref.Name).
					WithHint("apply again: it makes it anew")
			}
		}
		filled[i].Desired = render.FillGateway(change.Desired, address)
	}
	return filled, nil
}
