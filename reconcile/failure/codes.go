package failure

// Code names a kind of failure. It does not change.
type Code string

// AgentPane's codes.
const (
	ClusterUnreachable Code = "K8S_CLUSTER_UNREACHABLE"
	KubeconfigNotFound Code = "K8S_KUBECONFIG_NOT_FOUND"
	KubeconfigInvalid  Code = "K8S_KUBECONFIG_INVALID"
	ContextNotFound    Code = "K8S_CONTEXT_NOT_FOUND"
	APIError           Code = "K8S_API_ERROR"
	InternalError      Code = "K8S_INTERNAL_ERROR"

	NamespaceNotFound       Code = "K8S_NAMESPACE_NOT_FOUND"
	NamespaceCreationFailed Code = "K8S_NAMESPACE_CREATION_FAILED"
	NamespaceAccessDenied   Code = "K8S_NAMESPACE_ACCESS_DENIED"

	PodNotFound           Code = "K8S_POD_NOT_FOUND"
	PodCreationFailed     Code = "K8S_POD_CREATION_FAILED"
	PodStartupTimeout     Code = "K8S_POD_STARTUP_TIMEOUT"
	PodDeletionFailed     Code = "K8S_POD_DELETION_FAILED"
	PodNotRunning         Code = "K8S_POD_NOT_RUNNING"
	PodAlreadyExists      Code = "K8S_POD_ALREADY_EXISTS"
	PodSecurityViolation  Code = "K8S_POD_SECURITY_VIOLATION"
	InsufficientResources Code = "K8S_INSUFFICIENT_RESOURCES"

	ExecFailed           Code = "K8S_EXEC_FAILED"
	ExecTimeout          Code = "K8S_EXEC_TIMEOUT"
	ExecConnectionFailed Code = "K8S_EXEC_CONNECTION_FAILED"

	ImagePullFailed  Code = "K8S_IMAGE_PULL_FAILED"
	ImagePullBackOff Code = "K8S_IMAGE_PULL_BACKOFF"
	ImageNotFound    Code = "K8S_IMAGE_NOT_FOUND"

	TmuxSessionNotFound      Code = "K8S_TMUX_SESSION_NOT_FOUND"
	TmuxSessionAlreadyExists Code = "K8S_TMUX_SESSION_EXISTS"
	TmuxCreationFailed       Code = "K8S_TMUX_CREATION_FAILED"

	NetworkPolicyCreationFailed Code = "K8S_NETWORK_POLICY_CREATION_FAILED"
	NetworkPolicyNotFound       Code = "K8S_NETWORK_POLICY_NOT_FOUND"
	NetworkPolicyUpdateFailed   Code = "K8S_NETWORK_POLICY_UPDATE_FAILED"
	NetworkPolicyDeletionFailed Code = "K8S_NETWORK_POLICY_DELETION_FAILED"
	NetworkIsolationUnsupported Code = "K8S_NETWORK_ISOLATION_UNSUPPORTED"

	ServiceAccountCreationFailed Code = "K8S_SERVICE_ACCOUNT_CREATION_FAILED"
	RoleCreationFailed           Code = "K8S_ROLE_CREATION_FAILED"
	RoleBindingCreationFailed    Code = "K8S_ROLE_BINDING_CREATION_FAILED"
	LimitRangeCreationFailed     Code = "K8S_LIMIT_RANGE_CREATION_FAILED"

	WarmPoolEmpty            Code = "K8S_WARM_POOL_EMPTY"
	WarmPoolExhausted        Code = "K8S_WARM_POOL_EXHAUSTED"
	WarmPoolAllocationFailed Code = "K8S_WARM_POOL_ALLOCATION_FAILED"
	WarmPoolNotEnabled       Code = "K8S_WARM_POOL_NOT_ENABLED"
	WarmPodNotFound          Code = "K8S_WARM_POD_NOT_FOUND"
	WarmPoolDiscoveryFailed  Code = "K8S_WARM_POOL_DISCOVERY_FAILED"
)

// The codes that AgentPane lacks: it neither plans, nor shares an object with
// others, nor tells these refusals from any other API error.
const (
	Unauthorized         Code = "K8S_UNAUTHORIZED"
	InsecureConnection   Code = "K8S_INSECURE_CONNECTION"
	PermissionDenied     Code = "K8S_PERMISSION_DENIED"
	NamespaceTerminating Code = "K8S_NAMESPACE_TERMINATING"
	AdmissionRefused     Code = "K8S_ADMISSION_REFUSED"
	Invalid              Code = "K8S_INVALID"
	Immutable            Code = "K8S_IMMUTABLE"
	Conflict             Code = "K8S_CONFLICT"
	AdoptionRefused      Code = "K8S_ADOPTION_REFUSED"
	PlanStale            Code = "K8S_PLAN_STALE"
	FleetLocked          Code = "K8S_FLEET_LOCKED"
	ExecAsRootRefused    Code = "K8S_EXEC_AS_ROOT_REFUSED"
)
