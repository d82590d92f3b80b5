package render

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/pod-security-admission/api"

	"github.com/agentpane/sandboxctl/schema"
	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

// Verdict is what Pod Security admission says to a pod, by the checks that the API server runs.
type Verdict struct {
	Profile schema.PodSecurity
	// Violations are what the profile forbids, as the server words it; none when the pod is allowed.
	Violations []string
}

// Allowed reports whether the profile lets the pod in.
func (v Verdict) Allowed() bool { return len(v.Violations) == 0 }

// verdict judges the pod, and reports what it finds where the file brought it about.
func (r *renderer) verdict(s *schema.Sandbox, spec *corev1.PodSpec) *Verdict {
	verdict := &Verdict{Profile: r.fleet.PodSecurity}
	level := api.LevelVersion{Level: api.Level(verdict.Profile), Version: r.version}
	for _, result := range r.evaluator.EvaluatePod(level, &metav1.ObjectMeta{Annotations: s.Annotations}, spec) {
		if result.Allowed {
			continue
		}
		violation := result.ForbiddenReason
		if result.ForbiddenDetail != "" {
			violation += " (" + result.ForbiddenDetail + ")"
		}
		verdict.Violations = append(verdict.Violations, violation)
	}
	switch {
	case !verdict.Allowed():
		r.report("The pod violates the Pod Security profile "+string(verdict.Profile),
			"The cluster would refuse it: "+strings.Join(verdict.Violations, "; ")+".", r.culprit(s)...)
	case spec.HostNetwork:
		r.report("The pod is in the node's network, where no allowlist holds",
			"NetworkPolicy does not cover such pods: it reaches all that the node reaches.", r.culprit(s)...).Severity = diagnostic.Warning
	}
	return verdict
}
