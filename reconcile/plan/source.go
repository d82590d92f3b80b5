package plan

import "github.com/agentpane/sandboxctl/schema"

// Source is what a saved plan was made from and for: it can be applied to
// nothing else, and as the file says.
type Source struct {
	// Cluster is the uid of the cluster's kube-system namespace.
	Cluster string `json:"cluster"`
	// Connection is how the file says that the cluster is found.
	Connection schema.Cluster `json:"connection,omitzero"`
	// What of the file applying goes by, beside the objects.
	PodSecurity  schema.PodSecurity `json:"podSecurity"`
	Unenforced   schema.Unenforced  `json:"unenforced"`
	Mode         schema.EgressMode  `json:"mode"`
	GatewayImage string             `json:"gatewayImage,omitzero"`
	Limits       schema.Limits      `json:"limits"`
	// Stopped are the sandboxes that the file wants to be stopped.
	Stopped []string `json:"stopped,omitzero"`
}

// SourceOf is the source of a plan of that fleet for the cluster of that uid.
func SourceOf(fleet *schema.Fleet, cluster string) Source {
	source := Source{
		Cluster: cluster, Connection: fleet.Cluster, PodSecurity: fleet.PodSecurity,
		Unenforced: fleet.Egress.Unenforced, Mode: fleet.Egress.Mode, GatewayImage: fleet.Egress.Image, Limits: fleet.Limits,
	}
	for _, s := range fleet.Sandboxes {
		if s.State == schema.Stopped {
			source.Stopped = append(source.Stopped, s.Name)
		}
	}
	return source
}

// Fleet is what applying the saved plan needs to know of its file.
func (s Source) Fleet(p Plan) *schema.Fleet {
	fleet := &schema.Fleet{Name: p.Fleet, Namespace: p.Namespace, Cluster: s.Connection, PodSecurity: s.PodSecurity, Limits: s.Limits}
	fleet.Egress.Unenforced, fleet.Egress.Mode, fleet.Egress.Image = s.Unenforced, s.Mode, s.GatewayImage
	for _, name := range s.Stopped {
		fleet.Sandboxes = append(fleet.Sandboxes, schema.Sandbox{Name: name, State: schema.Stopped})
	}
	return fleet
}
