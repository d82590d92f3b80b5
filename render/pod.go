package render

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/agentpane/sandboxctl/schema"
	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

const (
	// userID is the user and group that sandboxes run as, as the original's.
	userID = 1000
	// gracePeriod is the original's, in seconds. An init that obeys needs none of it; what runs beside it may.
	gracePeriod = 10
	// workspacePath is where a sandbox works, workspaceVolume the volume that is there.
	workspacePath, workspaceVolume = "/workspace", "workspace"
)

// initScript is process 1 of a sandbox, in the shell of whatever image it has. A process 1 must do two things that no
// shell and no `tail -f` does by itself: end on a signal, and wait for the orphans that become its children. A shell
// that waits does both: a trap ends `wait` at once, and while it waits it reaps every child, known or not. What it waits
// for is sleep, for 68 years, again whenever somebody kills it; an image without sleep must not make it spin. The
// signals are those that images name as their STOPSIGNAL. Nothing of a user's ever becomes part of this text.
const initScript = `trap 'exit 0' HUP INT QUIT TERM
while :; do
  sleep 2147483647 & wait $!
  case $? in 126|127) exit 127;; esac
done
`

// pod renders the sandbox's pod. That of a stopped sandbox is only looked at: its faults are the file's, too.
func (r *renderer) pod(s *schema.Sandbox) {
	part, ok := r.part(s)
	switch {
	case !ok:
		return
	case s.State == schema.Stopped:
		return
	case r.checking:
		r.checked++
		return
	}
	object := newObject("Pod", PodName(r.fleet, s), r.sandboxLabels(s))
	if len(s.Annotations) > 0 {
		object.SetAnnotations(s.Annotations)
	}
	object.Object["spec"] = part.withClaim(VolumeName(r.fleet, s))
	added := r.add(object, sandboxPath(s))
	added.Security = part.verdict
	if s.Pool != "" {
		added.Adopted = r.onWarmPod(s)
	}
}

// podPart is a sandbox's pod without all that is the sandbox's own: its name, its labels, its volume.
type podPart struct {
	spec    map[string]any
	verdict *Verdict
}

// part returns the sandbox's; false when it cannot be rendered, which has been reported. Those that change nothing of
// their template have it from one another.
func (r *renderer) part(s *schema.Sandbox) (podPart, bool) {
	t, ok := r.fleet.Template(s.Template)
	common := ok && samePod(s.Settings, t.Settings)
	if part, known := r.parts[t.Name]; common && known {
		return part, true
	}
	spec, ok := r.patched(s, r.podSpec(s, ""))
	if !ok {
		return podPart{}, false
	}
	reported := len(r.found)
	part := podPart{content(spec), r.verdict(s, spec)}
	if common && len(r.found) == reported { // else each sandbox is to be named
		r.parts[t.Name] = part
	}
	return part, true
}

// withClaim returns the spec with the name of the workspace's claim, if it has one that no patch has named. What is the
// same in all is there once, for all of them: there may be many thousand.
func (p podPart) withClaim(name string) map[string]any {
	volumes, _ := p.spec["volumes"].([]any)
	at := slices.IndexFunc(volumes, isWorkspaceClaim)
	if at < 0 {
		return p.spec
	}
	spec, volume := maps.Clone(p.spec), maps.Clone(volumes[at].(map[string]any))
	volumes = slices.Clone(volumes)
	source := maps.Clone(volume["persistentVolumeClaim"].(map[string]any))
	if source["claimName"] != "" {
		return p.spec
	}
	source["claimName"], volume["persistentVolumeClaim"], volumes[at], spec["volumes"] = name, source, volume, volumes
	return spec
}

// samePod reports whether a pod is the same with either settings, but for its labels.
func samePod(a, b schema.Settings) bool {
	a.Labels, a.Egress, b.Labels, b.Egress = nil, schema.Egress{}, nil, schema.Egress{}
	return reflect.DeepEqual(a, b)
}

// sandboxLabels returns the labels of the sandbox's pod: the user's, and after them those that decide who owns the pod
// and which policies cover it.
func (r *renderer) sandboxLabels(s *schema.Sandbox) map[string]string {
	labels := make(map[string]string)
	maps.Copy(labels, s.Labels)
	maps.Copy(labels, identity(s))
	delete(labels, EgressLabel)
	if id, _ := canonicalRules(s.Egress.Allow); id != "" {
		labels[EgressLabel] = id
	}
	return labels
}

func sandboxPath(s *schema.Sandbox) string { return diagnostic.Path("sandboxes", s.Name) }

// podSpec returns a pod that the restricted profile allows, whatever profile the fleet has; claim is the name of its
// workspace's claim, if that is a persistent one.
func (r *renderer) podSpec(s *schema.Sandbox, claim string) *corev1.PodSpec {
	spec := &corev1.PodSpec{
		AutomountServiceAccountToken:  new(false),
		EnableServiceLinks:            new(false), // else every Service of the namespace shows in the environment
		RestartPolicy:                 corev1.RestartPolicyAlways,
		TerminationGracePeriodSeconds: new(int64(gracePeriod)),
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot:        new(true),
			RunAsUser:           new(int64(userID)),
			RunAsGroup:          new(int64(userID)),
			FSGroup:             new(int64(userID)),
			FSGroupChangePolicy: new(corev1.FSGroupChangeOnRootMismatch), // not each file anew at each start
			SeccompProfile:      &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		Containers: []corev1.Container{r.container(s)},
		Volumes:    []corev1.Volume{{Name: workspaceVolume, VolumeSource: workspaceSource(s, claim)}},
	}
	if s.RuntimeClass != "" {
		spec.RuntimeClassName = &s.RuntimeClass
	}
	r.dns(spec)
	return spec
}

func (r *renderer) container(s *schema.Sandbox) corev1.Container {
	container := corev1.Container{
		Name:            ContainerName,
		Image:           s.Image,
		ImagePullPolicy: corev1.PullIfNotPresent,
		Command:         []string{"/bin/sh", "-c", initScript},
		WorkingDir:      workspacePath,
		Resources: corev1.ResourceRequirements{
			Limits: amounts(s.Resources.Amounts), Requests: amounts(s.Resources.Requests),
		},
		VolumeMounts: []corev1.VolumeMount{{Name: workspaceVolume, MountPath: workspacePath}},
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: new(false),
			Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
	}
	for _, name := range slices.Sorted(maps.Keys(s.Env)) {
		literal := strings.ReplaceAll(s.Env[name], "$", "$$") // the kubelet expands $(NAME), and makes one $ of two
		container.Env = append(container.Env, corev1.EnvVar{Name: name, Value: literal})
	}
	for _, source := range s.EnvFrom {
		name := corev1.LocalObjectReference{Name: cmp.Or(source.Secret, source.ConfigMap)}
		from := corev1.EnvFromSource{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: name}}
		if source.Secret != "" {
			from = corev1.EnvFromSource{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: name}}
		}
		container.EnvFrom = append(container.EnvFrom, from)
	}
	return container
}
