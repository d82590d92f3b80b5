// Package audit records security events: one JSON object per line, each with
// the hash of the one before it, so that a record that is missing, changed or
// torn is found by [Verify]. Names and fields of events are AgentPane's; what
// AgentPane lacks is said beside it. A record is on the disk before [Log.Append]
// returns. The package never decides what is recorded, and never records a
// command's arguments or a secret.
package audit

import "time"

// Event is the name of what happened.
type Event string

// AgentPane's events.
const (
	PodCreated Event = "pod.created"
	PodStarted Event = "pod.started"
	PodStopped Event = "pod.stopped"
	PodDeleted Event = "pod.deleted"
	PodFailed  Event = "pod.failed"

	NetworkPolicyCreated Event = "network_policy.created"
	NetworkPolicyUpdated Event = "network_policy.updated"
	NetworkPolicyDeleted Event = "network_policy.deleted"

	ServiceAccountCreated     Event = "rbac.service_account_created"
	RoleCreated               Event = "rbac.role_created"
	RoleBindingCreated        Event = "rbac.role_binding_created"
	ClusterRoleCreated        Event = "rbac.cluster_role_created"
	ClusterRoleBindingCreated Event = "rbac.cluster_role_binding_created"

	NetworkPolicyEnabled  Event = "config.network_policy_enabled"
	NetworkPolicyDisabled Event = "config.network_policy_disabled"
	EgressHostsUpdated    Event = "config.egress_hosts_updated"

	ExecCommand         Event = "security.exec_command"
	ExecAsRootAttempted Event = "security.exec_as_root_attempted"
	PSSValidationPassed Event = "security.pss_validation_passed"
	PSSValidationFailed Event = "security.pss_validation_failed"

	NamespaceCreated Event = "namespace.created"
	NamespaceDeleted Event = "namespace.deleted"

	WarmPoolPrewarm    Event = "warm_pool.prewarm"
	WarmPoolAllocation Event = "warm_pool.allocation"
	WarmPoolPodCreated Event = "warm_pool.pod_created"
	WarmPoolPodDeleted Event = "warm_pool.pod_deleted"
	WarmPoolDiscovery  Event = "warm_pool.discovery"

	PVCCreated Event = "pvc.created"
	PVCDeleted Event = "pvc.deleted"
)

// The events that AgentPane lacks: it changes nothing in place, has no gateway
// and audits neither sessions nor copies.
const (
	PodUpdated     Event = "pod.updated"
	RBACUpdated    Event = "rbac.updated"
	RBACDeleted    Event = "rbac.deleted"
	PVCUpdated     Event = "pvc.updated"
	ObjectCreated  Event = "fleet.object_created"
	ObjectUpdated  Event = "fleet.object_updated"
	ObjectDeleted  Event = "fleet.object_deleted"
	EgressDenied   Event = "security.egress_denied"
	EgressCut      Event = "security.egress_cut"
	SessionCommand Event = "security.session_command"
	FilesCopied    Event = "security.files_copied"
	Recovered      Event = "audit.recovered" // what a crash tore is behind it
)

// Severity says how much an event matters.
type Severity string

// AgentPane's severities.
const (
	Info     Severity = "info"
	Warn     Severity = "warn"
	Error    Severity = "error"
	Critical Severity = "critical"
)

// Component is the part that an event is from.
type Component string

// AgentPane's components, and what it lacks: the gateway and this log.
const (
	Provider      Component = "k8s-provider"
	Sandbox       Component = "k8s-sandbox"
	NetworkPolicy Component = "k8s-network-policy"
	RBAC          Component = "k8s-rbac"
	Security      Component = "k8s-security"
	WarmPool      Component = "k8s-warm-pool"
	EgressGateway Component = "egress-gateway"
	AuditLog      Component = "audit-log"
)

// Record is one event.
type Record struct {
	Timestamp time.Time `json:"timestamp"`
	Event     Event     `json:"event"`
	Severity  Severity  `json:"severity"`
	Component Component `json:"component"`
	// About is what it happened to.
	About
	// Actor is who did it, as "alice@laptop (process 4711)".
	Actor    string         `json:"actor,omitempty"`
	Metadata map[string]any `json:"metadata,omitempty"`
	Error    string         `json:"error,omitempty"`
	// DurationMs is how long it took, in milliseconds; nil where that says
	// nothing.
	DurationMs *int64 `json:"durationMs,omitempty"`
	// Seq counts the records of the log from 1; Prev is the hash of the record
	// before it, empty in the first. Whoever appends the record sets them.
	Seq  uint64 `json:"seq"`
	Prev string `json:"prev"`
}

// About names what an event happened to. Any part can be empty.
type About struct {
	Namespace    string `json:"namespace,omitempty"`
	ResourceName string `json:"resourceName,omitempty"`
	SandboxID    string `json:"sandboxId,omitempty"`
	ProjectID    string `json:"projectId,omitempty"`
}

// Sink takes records.
type Sink interface {
	// Ready tells whether records can be written: what is to be recorded must
	// not be done where it cannot.
	Ready() error
	// Append writes the records, in this order. They are safe when it returns
	// nil. Several goroutines may call it at once.
	Append(records ...Record) error
}
