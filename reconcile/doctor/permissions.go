package doctor

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	k8sschema "k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/render"
)

// right is a right that the file needs.
type right struct {
	group, resource, subresource, verb, namespace string
}

func (r right) String() string {
	text := r.verb + " " + r.resource
	if r.subresource != "" {
		text += "/" + r.subresource
	}
	if r.group != "" {
		text += "." + r.group
	}
	if r.namespace == "" {
		return text + " in the whole cluster"
	}
	return text + " in namespace " + r.namespace
}

// rights are those that applying the fleet, and working in it, needs.
func (p Patient) rights() []right {
	var all []right
	used := map[k8sschema.GroupVersionKind]bool{}
	for _, object := range p.Objects {
		used[object.Object.GroupVersionKind()] = true
	}
	for _, kind := range render.KindsOf(p.Fleet) {
		verbs := []string{"list"}
		if used[kind.Kind] || kind.Kind.Kind == "ConfigMap" { // with the fleet's own record
			verbs = []string{"get", "list", "create", "patch", "delete"}
		}
		namespace := p.Fleet.Namespace
		if !kind.Namespaced {
			namespace = ""
		}
		for _, verb := range verbs {
			all = append(all, right{kind.Resource.Group, kind.Resource.Resource, "", verb, namespace})
		}
	}
	for resource, verb := range map[string]string{"exec": "create", "log": "get", "resize": "patch"} {
		all = append(all, right{"", "pods", resource, verb, p.Fleet.Namespace})
	}
	all = append(all, right{"", "pods", "", "watch", p.Fleet.Namespace}, right{"", "events", "", "list", p.Fleet.Namespace})
	if len(p.Fleet.Pools) > 0 { // which reserve the names of claimed sandboxes
		for _, verb := range []string{"get", "create", "update"} {
			all = append(all, right{"coordination.k8s.io", "leases", "", verb, p.Fleet.Namespace})
		}
	}
	slices.SortFunc(all, func(a, b right) int {
		return slices.Compare([]string{a.resource, a.subresource, a.verb}, []string{b.resource, b.subresource, b.verb})
	})
	return all
}

// permissions asks for each right whether the user has it.
func (p Patient) permissions(ctx context.Context) ([]Finding, error) {
	rights := p.rights()
	missing, err := p.missing(ctx, rights)
	if err != nil {
		return nil, fmt.Errorf("asking for permissions: %w", err)
	}
	if len(missing) == 0 {
		return good("permissions", "all %d rights that the file needs are there", len(rights)), nil
	}
	absent, err := p.absent(ctx, missing)
	if err != nil {
		return nil, err
	}
	var found []Finding
	for _, right := range missing {
		level, remedy := Error, "Have an administrator grant it: the Role and ClusterRole that sandboxctl render shows have all rights that are needed."
		switch {
		case !right.administrators():
		case absent[right.resource]:
			remedy = "Have an administrator run the first apply, which makes what lies outside of the namespace. After that it is not needed."
		default:
			level, remedy = Warning, "Nothing, unless a plan wants to change them: then have an administrator apply. What lies outside of the namespace is theirs."
		}
		found = append(found, bad(level, "permissions", remedy, "no permission to %s", right)...)
	}
	return found, nil
}

// administrators tells whether the right is one that the project's own roles
// leave to an administrator: to write what lies outside of the namespace.
func (r right) administrators() bool {
	return r.namespace == "" && (r.verb == "create" || r.verb == "patch" || r.verb == "delete")
}

// missing are the rights that the user does not have.
func (p Patient) missing(ctx context.Context, rights []right) ([]right, error) {
	lacks := make([]bool, len(rights))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for i, right := range rights {
		group.Go(func() error {
			allowed, err := p.may(ctx, right)
			lacks[i] = !allowed
			return err
		})
	}
	err := group.Wait()
	var missing []right
	for i, right := range rights {
		if lacks[i] {
			missing = append(missing, right)
		}
	}
	return missing, err
}

// absent are the resources, of those that an administrator writes, of which not
// all that the fleet needs is known to be there.
func (p Patient) absent(ctx context.Context, missing []right) (map[string]bool, error) {
	absent := map[string]bool{}
	for _, object := range p.Objects {
		kind := render.KindOf(object.Object.GroupVersionKind())
		if !slices.ContainsFunc(missing, func(r right) bool { return r.administrators() && r.resource == kind.Resource.Resource }) {
			continue
		}
		_, err := p.Client.Resource(kind.Resource).Get(ctx, object.Object.GetName(), metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err), refused(err):
			absent[kind.Resource.Resource] = true
		case err != nil:
			return nil, failure.From(err, failure.Object{Kind: kind.Kind.Kind, Name: object.Object.GetName()})
		}
	}
	return absent, nil
}

// may asks the server by a SelfSubjectAccessReview.
func (p Patient) may(ctx context.Context, r right) (bool, error) {
	review := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
		"spec": map[string]any{"resourceAttributes": map[string]any{
			"group": r.group, "resource": r.resource, "subresource": r.subresource, "verb": r.verb, "namespace": r.namespace,
		}},
	}}
	answer, err := p.resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "").Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	allowed, _, err := unstructured.NestedBool(answer.Object, "status", "allowed")
	return allowed, err
}
