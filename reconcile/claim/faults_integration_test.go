//go:build integration

package claim

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/agentpane/sandboxctl/reconcile/clustertest"
	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/pool"
)

// never is a pod that no scheduler looks at, and the ground neither: it is never
// ready.
const never = "{schedulerName: never}"

// interruptedClaim interrupts a claim as soon as it has its pod, which is never
// ready, and returns its error.
func (g *ground) interruptedClaim(client *Client, request Request) error {
	g.Helper()
	ctx, interrupt := context.WithCancel(g.Context())
	defer interrupt()
	claimed := make(chan error, 1)
	go func() {
		_, err := client.Claim(ctx, request)
		claimed <- err
	}()
	g.census.until(g, "the claim has a pod", func() bool { return len(g.claims()) > 0 })
	interrupt()
	return <-claimed
}

// claims are the sandboxes that have a pod; the census is held meanwhile.
func (g *ground) claims() (names []string) {
	for name, pods := range g.census.pods {
		if len(pods) > 0 {
			names = append(names, name)
		}
	}
	return names
}

// TestFailedClaim: a claim that fails after it has taken a pod leaves none, or
// says what to release.
func TestFailedClaim(t *testing.T) {
	g := newGround(t)
	fleet := loadFleet(t, fleetFile(g.namespace, "min: 0, max: 3", scratch, never))
	for _, request := range []Request{{Pool: "p"}, {Pool: "p", Name: "mine"}} {
		if err := g.interruptedClaim(g.claimer(fleet, nil), request); !errors.Is(err, context.Canceled) || failure.CodeOf(err) != "" {
			t.Errorf("interrupted, it says %v", err)
		}
		g.census.until(t, "nothing is left of it", func() bool { return len(g.census.alive) == 0 })
	}
	stuck := g.claimer(fleet, func(next http.RoundTripper) http.RoundTripper {
		return transport(func(request *http.Request) (*http.Response, error) {
			if request.Method == http.MethodDelete {
				return nil, errCrash
			}
			return next.RoundTrip(request)
		})
	})
	err := g.interruptedClaim(stuck, Request{Pool: "p"})
	g.census.mutex.Lock()
	left := g.claims()
	g.census.mutex.Unlock()
	failed, ok := errors.AsType[*failure.Error](err)
	if !ok || !errors.Is(err, context.Canceled) || len(left) != 1 || !strings.HasSuffix(failed.Hint, "sandboxctl release "+left[0]) {
		t.Errorf("of %v it says %+v", left, failed)
	}
}

// TestReservationLeftBehind: the name that a file has reserved, and then given up
// before there was a pod, is free; and is not while there is one.
func TestReservationLeftBehind(t *testing.T) {
	g := newGround(t)
	client := g.claimer(loadFleet(t, fleetFile(g.namespace, "min: 0, max: 3", scratch, nowhere)), nil)
	for _, name := range []string{"left", "there"} {
		if err := client.reserve(t.Context(), nil, name, pool.Pod{Name: name + "-cold"}); err != nil {
			t.Fatal(err)
		}
	}
	start := func(pod string) {
		_, err := g.client.CoreV1().Pods(g.namespace).Create(t.Context(), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: pod},
			Spec:       corev1.PodSpec{SchedulerName: "never", Containers: []corev1.Container{{Name: "sandbox", Image: "i"}}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	start("there-cold")
	claimed, err := client.Claim(t.Context(), Request{Pool: "p", Name: "left"})
	if err != nil {
		t.Errorf("the name that nobody has: %v", err)
	}
	if held, err := client.reservation(t.Context(), "left"); err != nil || held == nil || held.uid != claimed.UID {
		t.Errorf("it is reserved as %+v, %v", held, err)
	}
	if _, err := client.Claim(t.Context(), Request{Pool: "p", Name: "there"}); failure.CodeOf(err) != failure.AdoptionRefused {
		t.Errorf("the name that the file has a pod for: %v", err)
	}
	start("left-cold") // by an apply that was late
	if err := client.Settle(t.Context(), Adoption{Pool: "p", Sandbox: "left", Cold: "left-cold"}); failure.CodeOf(err) != failure.AdoptionRefused {
		t.Errorf("a pod that comes late: %v", err)
	}
	if err := client.Settle(t.Context(), Adoption{Pool: "p", Sandbox: "there", Cold: "there-cold"}); err != nil {
		t.Errorf("a pod that comes in time: %v", err)
	}
	g.census.until(t, "the late one is gone", func() bool { return len(g.census.alive) == 2 })
}

// as is the configuration of a service account that may do that with pods, and
// nothing else.
func (g *ground) as(t *testing.T, name string, verbs ...string) *rest.Config {
	t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
	role := &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: verbs}},
	}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: name, Namespace: g.namespace}},
	}
	_, err := g.client.CoreV1().ServiceAccounts(g.namespace).Create(t.Context(), account, metav1.CreateOptions{})
	if err == nil && len(verbs) > 0 {
		_, err = g.client.RbacV1().Roles(g.namespace).Create(t.Context(), role, metav1.CreateOptions{})
		if err == nil {
			_, err = g.client.RbacV1().RoleBindings(g.namespace).Create(t.Context(), binding, metav1.CreateOptions{})
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	token, err := g.client.CoreV1().ServiceAccounts(g.namespace).CreateToken(t.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range verbs {
		clustertest.Eventually(t, name+" may "+verb, func(ctx context.Context) bool {
			review, err := g.client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
				Spec: authorizationv1.SubjectAccessReviewSpec{
					User:               "system:serviceaccount:" + g.namespace + ":" + name,
					ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: g.namespace, Verb: verb, Resource: "pods"},
				},
			}, metav1.CreateOptions{})
			return err == nil && review.Status.Allowed
		})
	}
	config := rest.AnonymousClientConfig(g.config)
	config.QPS, config.BearerToken = -1, token.Status.Token
	return config
}

// TestStartWithoutRights: whoever may not see nodes claims all the same; whoever
// may not see pods is told so.
func TestStartWithoutRights(t *testing.T) {
	g := newGround(t)
	fleet := loadFleet(t, fleetFile(g.namespace, "min: 0, max: 3", scratch, nowhere))
	start := func(config *rest.Config) (*Client, error) {
		client, err := New(config, fleet, time.Now, testRandom, "the test")
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		t.Cleanup(stop)
		wait, err := client.Start(ctx)
		if err == nil {
			t.Cleanup(func() { stop(); wait() })
		}
		return client, err
	}
	client, err := start(g.as(t, "no-nodes", "list", "watch", "patch", "create", "get"))
	if err != nil {
		t.Fatalf("without rights on nodes: %v", err)
	}
	g.fill(g.claimer(fleet, nil), 1)
	g.seen(client, 1)
	if claimed, err := client.Claim(t.Context(), Request{Pool: "p"}); err != nil || !claimed.Warm {
		t.Errorf("claimed %+v, %v", claimed, err)
	}
	for name, verbs := range map[string][]string{"nothing": nil, "no-watch": {"list"}} {
		if _, err := start(g.as(t, name, verbs...)); failure.CodeOf(err) != failure.NamespaceAccessDenied {
			t.Errorf("%s: %v", name, err)
		}
	}
}
