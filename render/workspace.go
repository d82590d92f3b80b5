package render

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/schema"
)

// workspace renders the claim of a sandbox with a persistent workspace. It is there while the sandbox is in the file,
// stopped or not.
func (r *renderer) workspace(s *schema.Sandbox) {
	if r.checking && !s.Workspace.Size.IsZero() {
		r.checked++
		return
	}
	if object := r.claimOf(s, VolumeName(r.fleet, s)); object != nil {
		r.add(object, sandboxPath(s))
	}
}

// claimOf returns the claim of a persistent workspace under that name; nil where it is none. A pool's, whose sandbox has
// no name yet, has no identity either.
func (r *renderer) claimOf(s *schema.Sandbox, name string) *unstructured.Unstructured {
	w := s.Workspace
	if w.Size.IsZero() {
		return nil
	}
	labels := map[string]string{SandboxLabel: "true"}
	if s.Name != "" {
		labels = identity(s)
	}
	if w.Retain {
		labels[RetainLabel] = "true"
	}
	spec := corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: w.Size}},
	}
	if w.StorageClass != "" {
		spec.StorageClassName = &w.StorageClass
	}
	object := newObject("PersistentVolumeClaim", name, labels)
	object.Object["spec"] = content(&spec)
	r.complete(object)
	return object
}

// workspaceSource returns what is mounted at /workspace.
func workspaceSource(s *schema.Sandbox, claim string) corev1.VolumeSource {
	switch w := s.Workspace; {
	case w.HostPath != "":
		return corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{
			Path: w.HostPath, Type: new(corev1.HostPathDirectory), // a typing error must not make a directory
		}}
	case !w.EmptyDir.IsZero():
		return corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: new(w.EmptyDir)}}
	}
	return corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{
		ClaimName: claim,
	}}
}
