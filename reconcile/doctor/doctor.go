// Package doctor finds what would go wrong with a fleet on a cluster before it
// does: missing rights, Pod Security admission, classes and quotas, NetworkPolicy
// that is not enforced. Findings are values, and each that is not good says what
// to do. The package never prints, and what it makes for a probe it removes.
package doctor

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	k8sschema "k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/agentpane/sandboxctl/reconcile/enforcement"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// Level says how bad a finding is.
type Level string

// The levels. Unknown is what could not be found out.
const (
	OK      Level = "ok"
	Warning Level = "warning"
	Error   Level = "error"
	Unknown Level = "unknown"
)

// Finding is what a check came to.
type Finding struct {
	// Check is what was looked at: server, clock, permissions, namespace, pod-security,
	// runtime-class, storage-class, quota, egress, gateway, image.
	Check   string `json:"check"`
	Level   Level  `json:"level"`
	Message string `json:"message"`
	// Remedy is what to do about it; empty where all is well.
	Remedy string `json:"remedy"`
	// Enforcement is the probe's result, with the check egress; null with another.
	Enforcement *enforcement.Result `json:"enforcement"`
}

// Patient is what is examined.
type Patient struct {
	Client  dynamic.Interface
	Fleet   *schema.Fleet
	Objects []render.Object
	// Version is the server's, as "v1.37.2".
	Version string
	// ClockSkew is how much the clock of who examines is ahead of the server's.
	ClockSkew time.Duration
	// Probe tells whether the cluster enforces NetworkPolicy.
	Probe func(context.Context) (enforcement.Result, error)
	// Tools tells, by image, what of tmux a running sandbox of that image has:
	// the version; an error for none. Images without a running sandbox are
	// missing.
	Tools func(context.Context) (map[string]Tool, error)
}

// Tool is a program in an image.
type Tool struct {
	Version string
	Err     error
}

// Examine runs all checks, several at once, and returns their findings in a
// fixed order. The error is for a cluster that does not answer.
func Examine(ctx context.Context, p Patient) ([]Finding, error) {
	checks := []func(context.Context) ([]Finding, error){
		p.server, p.clock, p.permissions, p.namespace, p.runtimeClasses, p.storageClasses, p.quota, p.egress, p.gateway, p.images,
	}
	all := make([][]Finding, len(checks))
	group, ctx := errgroup.WithContext(ctx)
	for i, check := range checks {
		group.Go(func() (err error) {
			all[i], err = check(ctx)
			return err
		})
	}
	err := group.Wait()
	return slices.Concat(all...), err
}

func good(check, format string, args ...any) []Finding {
	return []Finding{{Check: check, Level: OK, Message: fmt.Sprintf(format, args...)}}
}

func bad(level Level, check, remedy, format string, args ...any) []Finding {
	return []Finding{{Check: check, Level: level, Message: fmt.Sprintf(format, args...), Remedy: remedy}}
}

// resource is where objects of a kind are.
func (p Patient) resource(group, version, resource, namespace string) dynamic.ResourceInterface {
	client := p.Client.Resource(k8sschema.GroupVersionResource{Group: group, Version: version, Resource: resource})
	if namespace == "" {
		return client
	}
	return client.Namespace(namespace)
}

// refused tells whether an error is a lack of rights, which is a finding of its
// own.
func refused(err error) bool { return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) }

func (p Patient) server(context.Context) ([]Finding, error) {
	var major, minor int
	if _, err := fmt.Sscanf(p.Version, "v%d.%d", &major, &minor); err != nil {
		return bad(Unknown, "server", "Nothing, if it works.", "the server's version, %q, is of a form that is not known", p.Version), nil
	}
	// Server-side apply and Pod Security admission are older; a resize in place
	// is a subresource since 1.33.
	if major == 1 && minor < 33 {
		return bad(Warning, "server", "Upgrade the cluster to 1.33 or later: until then, another amount of CPU or memory replaces a sandbox.",
			"the server is %s, which cannot resize a pod in place", p.Version), nil
	}
	return good("server", "the server is %s", p.Version), nil
}
