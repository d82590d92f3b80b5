package render

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/schema"
	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

// The labels of a pool's pods, which keep the original's names, and the values of WarmStateLabel.
const (
	WarmPoolLabel  = "agentpane.io/warm-pool"       // "true" on a pool's pods and volumes, warm or claimed
	WarmStateLabel = "agentpane.io/warm-pool-state" // Warm or Allocated
	PoolIDLabel    = "agentpane.io/pool-id"         // the pool's name
	BlueprintLabel = "agentpane.io/blueprint"       // a hash of what the pod was rendered from

	Warm      = "warm"
	Allocated = "allocated"
)

// Origin is the value of OriginAnnotation: whether the pod was there and ready when it was claimed, or had to be started.
func Origin(warm bool) string {
	if warm {
		return Warm
	}
	return "cold"
}

// The annotations of a claimed pod. They say what cannot be read off a label: who, when, until when, and what the
// sandbox has beyond what the pod was started with.
const (
	EnvAnnotation        = "agentpane.io/env"         // JSON: the variables that exec and sessions add
	ClaimedAtAnnotation  = "agentpane.io/claimed-at"  // RFC 3339, with milliseconds
	ClaimedByAnnotation  = "agentpane.io/claimed-by"  // a person or a program; none for a declared sandbox
	ClaimIDAnnotation    = "agentpane.io/claim-id"    // the one write that claimed it
	LeaseUntilAnnotation = "agentpane.io/lease-until" // RFC 3339; none for a declared sandbox
	OriginAnnotation     = "agentpane.io/origin"      // "warm" or "cold"
	ClaimTimeAnnotation  = "agentpane.io/claim-ms"    // from the claim's begin to its write, in milliseconds
	KeepUntilAnnotation  = "agentpane.io/keep-until"  // RFC 3339: a warm pod that was ordered in advance
	ActivityAnnotation   = "agentpane.io/last-activity"
)

// ClaimAnnotations are those that a claim leaves, and that no later change of the sandbox takes away.
func ClaimAnnotations() []string {
	return []string{ClaimedAtAnnotation, ClaimedByAnnotation, ClaimIDAnnotation, LeaseUntilAnnotation, OriginAnnotation, ClaimTimeAnnotation}
}

// Pool is what a pool's pods are made from.
type Pool struct {
	schema.Pool
	// Path names the entry of the file, as "pools.node".
	Path string
	// Pod is a warm pod without a name, Volume the claim of its workspace; nil where that is no persistent one.
	Pod, Volume *unstructured.Unstructured
	// Hash is that of both, as in BlueprintLabel. A pod with another one is outdated.
	Hash string
	// claimed is a pod of the pool that is a sandbox's, but for the sandbox itself.
	claimed *unstructured.Unstructured
	env     map[string]string
	prefix  string
}

// Allowlist is the value of EgressLabel that a program's sandbox out of the pool has.
func (p Pool) Allowlist() string { return p.claimed.GetLabels()[EgressLabel] }

// Pools returns what the fleet's pools are made from. What is wrong with them is among the findings of Objects.
func Pools(fleet *schema.Fleet) ([]Pool, error) {
	if len(fleet.Pools) == 0 {
		return nil, nil
	}
	r := newRenderer(fleet)
	if err := r.prepare(); err != nil {
		return nil, err
	}
	var pools []Pool
	for _, p := range fleet.Pools {
		if pool, ok := r.pool(p); ok {
			pools = append(pools, pool)
		}
	}
	return pools, nil
}

// pool renders the blueprint of a pool's pods; false when it cannot be, which has been reported.
func (r *renderer) pool(p schema.Pool) (Pool, bool) {
	s, ok := r.member(p)
	if !ok {
		return Pool{}, false
	}
	spec, ok := r.patched(s, r.podSpec(s, ""))
	if !ok {
		return Pool{}, false
	}
	r.verdict(s, spec)
	pool := Pool{
		Pool: p, Path: diagnostic.Path("pools", p.Name), Volume: r.claimOf(s, ""), env: s.Env,
		prefix: poolPodPrefix + slug(p.Name, 20) + "-" + digest(r.fleet.Name, p.Name) + "-",
	}
	content := content(spec)
	pool.Hash = blueprintHash(content, pool.Volume)
	pool.Pod = r.poolPod(p.Name, s, pool.Hash, content)
	labels := pool.Pod.GetLabels()
	labels[WarmStateLabel] = Warm
	pool.Pod.SetLabels(labels)
	pool.claimed = r.poolPod(p.Name, s, pool.Hash, content)
	labels = pool.claimed.GetLabels()
	labels[WarmStateLabel] = Allocated
	if id, _ := canonicalRules(s.Egress.Allow); id != "" {
		labels[EgressLabel] = id
	}
	pool.claimed.SetLabels(labels)
	if pool.Volume != nil {
		volumeLabels := pool.Volume.GetLabels()
		volumeLabels[WarmPoolLabel], volumeLabels[PoolIDLabel] = "true", labelValue(p.Name)
		pool.Volume.SetLabels(volumeLabels)
	}
	return pool, true
}

// member returns what a pool's pods are as sandboxes: those of its template, without a name or a project.
func (r *renderer) member(p schema.Pool) (*schema.Sandbox, bool) {
	t, ok := r.fleet.Template(p.Template)
	return &schema.Sandbox{Template: t.Name, Pool: p.Name, State: schema.Running, Settings: t.Settings}, ok
}

// poolPod returns a nameless pod of a pool. It has no allowlist: until it is claimed it reaches nothing.
func (r *renderer) poolPod(pool string, s *schema.Sandbox, hash string, spec map[string]any) *unstructured.Unstructured {
	labels := maps.Clone(s.Labels)
	if labels == nil {
		labels = make(map[string]string)
	}
	maps.Copy(labels, map[string]string{
		SandboxLabel: "true", WarmPoolLabel: "true", PoolIDLabel: labelValue(pool), BlueprintLabel: hash,
	})
	object := newObject("Pod", "", labels)
	if len(s.Annotations) > 0 {
		object.SetAnnotations(maps.Clone(s.Annotations))
	}
	object.Object["spec"] = spec
	r.complete(object)
	return object.DeepCopy() // the spec is shared so far
}

// onWarmPod returns the sandbox as it is on a pod of its pool, without the pod's name: all that the pod was started with
// is as the pool's, if the sandbox asks for nothing else, and the rest is in labels and annotations.
func (r *renderer) onWarmPod(s *schema.Sandbox) *unstructured.Unstructured {
	t, ok := r.fleet.Template(s.Template)
	if !ok {
		return nil
	}
	bare := *s
	bare.Env = t.Env
	spec, ok := r.patched(&bare, r.podSpec(&bare, ""))
	if !ok {
		return nil
	}
	content := content(spec)
	object := r.poolPod(s.Pool, s, blueprintHash(content, r.claimOf(&bare, "")), content)
	labels := object.GetLabels()
	maps.Copy(labels, r.sandboxLabels(s))
	labels[WarmStateLabel] = Allocated
	object.SetLabels(labels)
	setEnv(object, s.Env, t.Env)
	return object
}

// setEnv notes which variables a sandbox has beyond those that its pod was started with.
func setEnv(object *unstructured.Unstructured, env, started map[string]string) {
	more := maps.Clone(env)
	maps.DeleteFunc(more, func(name, value string) bool { known, ok := started[name]; return ok && known == value })
	if len(more) == 0 {
		return
	}
	encoded, err := json.Marshal(more) // sorts the names
	if err != nil {
		panic(err) // of strings
	}
	annotations := object.GetAnnotations()
	if annotations == nil {
		annotations = make(map[string]string)
	}
	annotations[EnvAnnotation] = string(encoded)
	object.SetAnnotations(annotations)
}

// blueprintHash is a SHA-256 of what a pod and its volume are made from, as long as it is: a label has room for it.
func blueprintHash(spec map[string]any, volume *unstructured.Unstructured) string {
	parts := []any{spec}
	if volume != nil {
		parts = append(parts, volume.Object["spec"])
	}
	encoded, err := json.Marshal(parts) // sorts the keys
	if err != nil {
		panic(fmt.Sprintf("what was rendered is no JSON: %v", err))
	}
	sum := sha256.Sum256(encoded)
	return strings.ToLower(base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:]))
}

// PodName returns the name of the pool's pod in a slot. There are as many slots as the pool may have pods, and a name
// can be taken once: so it is the API server that keeps a pool from ever having more, whoever makes them.
func (p Pool) PodName(slot int) string { return p.prefix + strconv.Itoa(slot) }

const poolPodPrefix = "agentpane-warm-"

// IsPoolPod tells whether a pod's name is one of a pool's, and not of a sandbox's own.
func IsPoolPod(name string) bool { return strings.HasPrefix(name, poolPodPrefix) }

// Slot returns the slot that a pod of the pool is in, by its name; -1 if it is none of the pool's names.
func (p Pool) Slot(name string) int {
	rest, ok := strings.CutPrefix(name, p.prefix)
	slot, err := strconv.Atoi(rest)
	if !ok || err != nil || slot < 0 || strconv.Itoa(slot) != rest {
		return -1
	}
	return slot
}

// WarmPod returns the warm pod for a slot, and the claim of its workspace or nil. That has a name which is its own for
// ever, as it may outlive the pod: random tells it from the one that the slot had before.
func (p Pool) WarmPod(slot int, random string) (pod, volume *unstructured.Unstructured) {
	name := p.PodName(slot)
	if p.Volume != nil {
		volume = p.Volume.DeepCopy()
		volume.SetName(name + "-" + random)
	}
	pod = p.Pod.DeepCopy()
	if volume != nil {
		return OnPod(pod, name, volume.GetName()), volume
	}
	return OnPod(pod, name, ""), nil
}

// Claim is a sandbox that a program claims out of a pool.
type Claim struct {
	Sandbox, Project string
	Env              map[string]string
	// Annotations say who claimed it, and until when.
	Annotations map[string]string
}

// Claimed returns what makes a pod of the pool the claim's sandbox, without the pod's name: see OnPod.
func (p Pool) Claimed(c Claim) *unstructured.Unstructured {
	object := p.claimed.DeepCopy()
	labels := object.GetLabels()
	maps.Copy(labels, identity(&schema.Sandbox{Name: c.Sandbox, Project: c.Project}))
	object.SetLabels(labels)
	env := maps.Clone(p.env)
	if env == nil {
		env = make(map[string]string)
	}
	maps.Copy(env, c.Env)
	setEnv(object, env, p.env)
	annotations := object.GetAnnotations()
	if annotations == nil {
		annotations = make(map[string]string)
	}
	maps.Copy(annotations, c.Annotations)
	object.SetAnnotations(annotations)
	return object
}

// OnPod gives a nameless pod its name, and its workspace's claim if it has one. It returns the pod that it changed.
func OnPod(object *unstructured.Unstructured, name, claim string) *unstructured.Unstructured {
	object.SetName(name)
	if source := workspaceClaim(object); source != nil {
		source["claimName"] = claim
	}
	return object
}

// WorkspaceOf returns the claim that a pod mounts as its workspace; empty where it is no persistent one.
func WorkspaceOf(pod *unstructured.Unstructured) string {
	claim, _ := workspaceClaim(pod)["claimName"].(string)
	return claim
}

// workspaceClaim returns the persistent volume that is a pod's workspace, as it stands in the pod; nil where it is none.
func workspaceClaim(pod *unstructured.Unstructured) map[string]any {
	spec, _ := pod.Object["spec"].(map[string]any)
	volumes, _ := spec["volumes"].([]any)
	at := slices.IndexFunc(volumes, isWorkspaceClaim)
	if at < 0 {
		return nil
	}
	return volumes[at].(map[string]any)["persistentVolumeClaim"].(map[string]any)
}

// isWorkspaceClaim tells a pod's volume that is a persistent workspace.
func isWorkspaceClaim(item any) bool {
	volume, _ := item.(map[string]any)
	_, persistent := volume["persistentVolumeClaim"].(map[string]any)
	return persistent && volume["name"] == workspaceVolume
}
