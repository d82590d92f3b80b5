// Package schema reads fleet files: sandboxes.yaml, or sandboxes.cue.
//
// [Load] turns files into [Fleet] values, complete with defaults, and says all that is wrong with them as
// [diagnostic.List]. The file sandboxes.cue says what a fleet may be. The package never talks to a cluster, never
// prints, and never changes what was loaded: equal files give equal fleets.
package schema

import (
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/agentpane/sandboxctl/schema/diagnostic"
	"github.com/agentpane/sandboxctl/schema/internal/tree"
)

// Fleet is what one file keeps in a cluster. Lists of named things are sorted by name. Its maps are shared between the
// things that inherit them, and are not to be changed.
type Fleet struct {
	Name        string      `json:"name"`
	Cluster     Cluster     `json:"cluster,omitzero"`
	Namespace   string      `json:"namespace"`
	PodSecurity PodSecurity `json:"podSecurity"`
	// Suspend: watch only reports.
	Suspend bool        `json:"suspend,omitzero"`
	Egress  FleetEgress `json:"egress"`
	Limits  Limits      `json:"limits"`
	// Quota is by the names of a ResourceQuota; nil when there is none.
	Quota     map[string]resource.Quantity `json:"quota,omitzero"`
	Templates []Template                   `json:"templates,omitzero"`
	Pools     []Pool                       `json:"pools,omitzero"`
	Sandboxes []Sandbox                    `json:"sandboxes,omitzero"`

	file  *diagnostic.File
	root  tree.Node
	index map[[2]string]*tree.Field // the entries of templates, pools and sandboxes
}

// Cluster is the cluster to talk to; each part is empty when it is to be discovered.
type Cluster struct {
	Kubeconfig string `json:"kubeconfig,omitzero"`
	Context    string `json:"context,omitzero"`
}

// Identity tells one fleet from another: there may be one of each name on each cluster.
type Identity struct {
	Name    string
	Cluster Cluster
}

// Identity returns what the fleet is told from others by.
func (f *Fleet) Identity() Identity { return Identity{f.Name, f.Cluster} }

// PodSecurity is a profile of the Pod Security Standards.
type PodSecurity string

// The profiles, the strictest first.
const (
	Restricted PodSecurity = "restricted"
	Baseline   PodSecurity = "baseline"
	Privileged PodSecurity = "privileged"
)

// FleetEgress is what the fleet's sandboxes may reach unless they say otherwise, and how that is enforced.
type FleetEgress struct {
	Egress
	Mode EgressMode `json:"mode"`
	// Unenforced says what apply does on a cluster that does not enforce NetworkPolicy.
	Unenforced Unenforced `json:"unenforced"`
	// Image is what the gateway runs; empty for the image of this program's version.
	Image string `json:"image,omitzero"`
}

// EgressMode is who enforces host names.
type EgressMode string

// The modes.
const (
	Gateway EgressMode = "gateway"
	Cilium  EgressMode = "cilium"
)

// Unenforced is what to do where egress rules are not enforced.
type Unenforced string

// The ways to deal with it.
const (
	Refuse Unenforced = "refuse"
	Allow  Unenforced = "allow"
)

// Egress is an allowlist. An empty list allows nothing.
type Egress struct {
	Allow []EgressRule `json:"allow"`
}

// EgressRule is one thing that may be reached: exactly one of Host, CIDR and Preset is set.
type EgressRule struct {
	// Host is a name in lower case, or "*." and the name below which all are meant.
	Host   string       `json:"host,omitzero"`
	CIDR   netip.Prefix `json:"cidr,omitzero"`
	Preset Preset       `json:"preset,omitzero"`
	// Ports are TCP ports, at least one with Host and CIDR, none with Preset.
	Ports []int32 `json:"ports,omitzero"`
	// Internal: the host may have a private address.
	Internal bool `json:"internal,omitzero"`
}

// Preset is a rule with a name.
type Preset string

// The presets. "Public" is any address that is not private, link-local or a metadata service.
const (
	DNS         Preset = "dns"
	PublicHTTPS Preset = "public-https"
	PublicHTTP  Preset = "public-http"
	PublicSSH   Preset = "public-ssh"
)

// Amounts is some CPU and some memory. An amount that is not stated is zero.
type Amounts struct {
	CPU    resource.Quantity `json:"cpu,omitzero"`
	Memory resource.Quantity `json:"memory,omitzero"`
}

// Limits is what the namespace's LimitRange says, in full.
type Limits struct {
	Default        Amounts `json:"default"`
	DefaultRequest Amounts `json:"defaultRequest"`
	Min            Amounts `json:"min"`
	Max            Amounts `json:"max"`
	PodMax         Amounts `json:"podMax"`
}

// Settings is what a template sets and a sandbox may set otherwise. In a loaded fleet it is in effect: inherited and
// complete.
type Settings struct {
	Image        string            `json:"image"`
	Resources    Resources         `json:"resources"`
	RuntimeClass string            `json:"runtimeClass,omitzero"`
	Workspace    Workspace         `json:"workspace"`
	Env          map[string]string `json:"env,omitzero"`
	EnvFrom      []EnvFrom         `json:"envFrom,omitzero"`
	Labels       map[string]string `json:"labels,omitzero"`
	Annotations  map[string]string `json:"annotations,omitzero"`
	Egress       Egress            `json:"egress"`
	// Pod is strategic-merge patches over the PodSpec, to be applied in this order.
	Pod []map[string]any `json:"pod,omitzero"`
}

// Resources is the limits of a sandbox's container, and its requests.
type Resources struct {
	Amounts
	Requests Amounts `json:"requests,omitzero"`
}

// Workspace is what is mounted at /workspace: exactly one of Size, EmptyDir and HostPath is set.
type Workspace struct {
	// Size is that of a persistent volume claim.
	Size         resource.Quantity `json:"size,omitzero"`
	StorageClass string            `json:"storageClass,omitzero"` // empty: the cluster's default
	Retain       bool              `json:"retain,omitzero"`       // the claim outlives the sandbox
	EmptyDir     resource.Quantity `json:"emptyDir,omitzero"`
	HostPath     string            `json:"hostPath,omitzero"`
}

// EnvFrom is all keys of a Secret or of a ConfigMap; exactly one is set.
type EnvFrom struct {
	Secret    string `json:"secret,omitzero"`
	ConfigMap string `json:"configMap,omitzero"`
}

// Template is settings with a name.
type Template struct {
	Name string `json:"name"`
	Settings
}

// Pool is a number of warm pods.
type Pool struct {
	Name      string          `json:"name"`
	Template  string          `json:"template"`
	Min       int             `json:"min"`
	Max       int             `json:"max"`
	Replenish metav1.Duration `json:"replenish"`
	// Autoscale is nil when the pool stays at Min.
	Autoscale *Autoscale `json:"autoscale,omitempty"`
}

// Autoscale is how a pool follows its use.
type Autoscale struct {
	ScaleUp   float64         `json:"scaleUp"`
	ScaleDown float64         `json:"scaleDown"`
	Window    metav1.Duration `json:"window"`
}

// Sandbox is a pod with a disk, an allowlist and terminals.
type Sandbox struct {
	Name    string `json:"name"`
	Project string `json:"project"`
	// Template is empty when the sandbox sets everything itself.
	Template string `json:"template,omitzero"`
	// Pool is empty when the sandbox always starts cold.
	Pool  string `json:"pool,omitzero"`
	State State  `json:"state"`
	// Idle is zero when nothing happens to an idle sandbox.
	Idle Idle `json:"idle,omitzero"`
	Settings
	Sessions []Session `json:"sessions,omitzero"`
}

// State is whether a sandbox has a pod.
type State string

// The states.
const (
	Running State = "running"
	Stopped State = "stopped"
)

// Idle is what happens when nobody uses a sandbox.
type Idle struct {
	After  metav1.Duration `json:"after"`
	Action string          `json:"action"` // always "stop"
}

// Template returns the template of that name.
func (f *Fleet) Template(name string) (Template, bool) {
	return named(f.Templates, name, func(t Template) string { return t.Name })
}

// Pool returns the pool of that name.
func (f *Fleet) Pool(name string) (Pool, bool) {
	return named(f.Pools, name, func(p Pool) string { return p.Name })
}

// Sandbox returns the sandbox of that name, with its settings in effect.
func (f *Fleet) Sandbox(name string) (Sandbox, bool) {
	return named(f.Sandboxes, name, func(s Sandbox) string { return s.Name })
}

func named[T any](sorted []T, name string, nameOf func(T) string) (found T, ok bool) {
	i, ok := slices.BinarySearchFunc(sorted, name, func(t T, name string) int { return strings.Compare(nameOf(t), name) })
	if ok {
		found = sorted[i]
	}
	return found, ok
}
