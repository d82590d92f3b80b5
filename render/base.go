package render

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/manifests"
	"github.com/agentpane/sandboxctl/schema"
)

// PodSecurityVersion is the version of the Pod Security Standards that namespaces enforce: the newest that the library
// knows which gives the verdicts.
const PodSecurityVersion = "v1.37"

// base renders the objects that every fleet has: those of package manifests, made the fleet's own.
func (r *renderer) base() error {
	objects, err := manifests.Objects()
	if err != nil {
		return err
	}
	for _, object := range objects {
		path := "name"
		namespaced := KindOf(object.GroupVersionKind()).Namespaced
		switch kind := object.GetKind(); kind {
		case "Namespace": // the one object that fleets share
			r.podSecurity(object)
			object.SetName(r.fleet.Namespace)
			r.add(object, "namespace")
			continue
		case "LimitRange":
			path = "limits"
			r.limits(object)
		case "NetworkPolicy":
			path = "egress"
			err = unstructured.SetNestedField(object.Object, labelValue(r.fleet.Name), "spec", "podSelector", "matchLabels", FleetLabel)
		case "RoleBinding", "ClusterRoleBinding":
			err = r.bind(object, namespaced)
		}
		if err != nil {
			return err
		}
		object.SetName(r.own(object.GetName(), namespaced))
		r.add(object, path)
	}
	return nil
}

func (r *renderer) podSecurity(namespace *unstructured.Unstructured) {
	labels := namespace.GetLabels()
	for _, mode := range []string{"enforce", "warn", "audit"} {
		labels["pod-security.kubernetes.io/"+mode] = string(r.fleet.PodSecurity)
		labels["pod-security.kubernetes.io/"+mode+"-version"] = PodSecurityVersion
	}
	namespace.SetLabels(labels)
}

func (r *renderer) limits(object *unstructured.Unstructured) {
	l := &r.fleet.Limits
	object.Object["spec"] = content(&corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{
		{
			Type: corev1.LimitTypeContainer, Default: amounts(l.Default), DefaultRequest: amounts(l.DefaultRequest),
			Min: amounts(l.Min), Max: amounts(l.Max),
		},
		{Type: corev1.LimitTypePod, Max: amounts(l.PodMax)},
	}})
}

// bind makes a binding one of the fleet's own service account to the fleet's own role.
func (r *renderer) bind(object *unstructured.Unstructured, namespaced bool) error {
	role, _, err := unstructured.NestedString(object.Object, "roleRef", "name")
	if err != nil {
		return err
	}
	if err := unstructured.SetNestedField(object.Object, r.own(role, namespaced), "roleRef", "name"); err != nil {
		return err
	}
	subjects, _, err := unstructured.NestedSlice(object.Object, "subjects")
	if err != nil {
		return err
	}
	for _, subject := range subjects {
		subject := subject.(map[string]any)
		subject["name"] = r.own(subject["name"].(string), true)
		subject["namespace"] = r.fleet.Namespace
	}
	return unstructured.SetNestedSlice(object.Object, subjects, "subjects")
}

// quota renders the bounds of the namespace as a whole, where the file has any.
func (r *renderer) quota() {
	if len(r.fleet.Quota) == 0 {
		return
	}
	object := newObject("ResourceQuota", r.own("sandbox-quota", true), nil)
	hard := make(corev1.ResourceList, len(r.fleet.Quota))
	for name, q := range r.fleet.Quota {
		hard[corev1.ResourceName(name)] = q
	}
	object.Object["spec"] = content(&corev1.ResourceQuotaSpec{Hard: hard})
	r.add(object, "quota")
}

// amounts returns CPU and memory as a resource list; what is not stated is left out.
func amounts(a schema.Amounts) corev1.ResourceList {
	list := make(corev1.ResourceList)
	for name, q := range map[corev1.ResourceName]resource.Quantity{corev1.ResourceCPU: a.CPU, corev1.ResourceMemory: a.Memory} {
		if !q.IsZero() {
			list[name] = q
		}
	}
	return list
}
