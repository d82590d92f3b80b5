package claim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// server is an API server's answer to a request: its status and its body.
type server func(*http.Request) (code int, body string)

func (s server) RoundTrip(request *http.Request) (*http.Response, error) {
	if err := request.Context().Err(); err != nil {
		return nil, err
	}
	code, body := s(request)
	return &http.Response{
		StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), Request: request,
	}, nil
}

func (s server) client(t *testing.T) *Client {
	t.Helper()
	client, err := New(&rest.Config{Host: "http://server", Transport: s, QPS: -1}, &schema.Fleet{Name: "f", Namespace: "n"}, time.Now,
		func(n int) string { return strings.Repeat("0", n) }, "the test")
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func status(code int, reason metav1.StatusReason, message string) (int, string) {
	return code, fmt.Sprintf(`{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": %d, "reason": %q, "message": %q}`, code, reason, message)
}

// TestWrite: a write is repeated while nobody knows what came of it, less and
// less often, and the server's own words are why it was given up. What the server
// will never do is not asked for again.
func TestWrite(t *testing.T) {
	const ours = `{"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p", "uid": "u", "resourceVersion": "7",
		"labels": {"` + render.WarmPoolLabel + `": "true"}, "annotations": {"` + render.ClaimIDAnnotation + `": "the order"}}}`
	for name, test := range map[string]struct {
		// messages are the server's words, of which the last is repeated, all with
		// status 500; "lost" is no answer.
		messages  []string
		done      bool // the write was done all the same
		interrupt bool
		want      failure.Code
		words     string
		most      int
	}{
		"a server in trouble": {messages: []string{"etcdserver: request timed out"}, want: failure.WarmPoolAllocationFailed, words: "etcdserver: request timed out", most: 200},
		"a webhook that does not answer": {
			messages: []string{`Internal error occurred: failed calling webhook "w.example.com": failed to call webhook: no endpoints`},
			want:     failure.AdmissionRefused, words: "w.example.com", most: 1,
		},
		"a field that the server does not know": {
			messages: []string{"failed to create typed patch object (n/p; /v1, Kind=Pod): .spec.colour: field not declared in schema"},
			want:     failure.Invalid, words: ".spec.colour", most: 1,
		},
		"done, and then refused": {
			messages: []string{"etcdserver: request timed out", `Internal error occurred: failed calling webhook "w.example.com": failed to call webhook: no endpoints`},
			done:     true, want: failure.AdmissionRefused, words: "w.example.com", most: 2,
		},
		"done, and never said so": {messages: []string{"etcdserver: request timed out"}, done: true, want: failure.WarmPoolAllocationFailed, words: "etcdserver", most: 200},
		"interrupted":             {messages: []string{"etcdserver: request timed out"}, done: true, interrupt: true, words: "canceled", most: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
				defer stop()
				attempts := 0
				client := server(func(request *http.Request) (int, string) {
					switch {
					case request.Method == http.MethodGet && test.done:
						return http.StatusOK, ours
					case request.Method == http.MethodGet:
						return status(http.StatusNotFound, metav1.StatusReasonNotFound, "there is no pod")
					}
					attempts++
					if test.interrupt {
						stop()
					}
					return status(http.StatusInternalServerError, metav1.StatusReasonInternalError, test.messages[min(attempts, len(test.messages))-1])
				}).client(t)
				object := &unstructured.Unstructured{Object: map[string]any{"kind": "Pod", "apiVersion": "v1", "metadata": map[string]any{"name": "p"}}}
				pod, err := client.write(ctx, object, order{id: "the order", sandbox: "s", starts: &render.Pool{}})
				if failure.CodeOf(err) != test.want || err == nil || !strings.Contains(err.Error(), test.words) {
					t.Errorf("it says %v", err)
				}
				if test.interrupt != errors.Is(err, context.Canceled) {
					t.Errorf("an interrupt, or none: %v", err)
				}
				if attempts > test.most {
					t.Errorf("%d attempts", attempts)
				}
				if (pod != nil) != test.done {
					t.Errorf("the pod is %v", pod)
				}
			})
		})
	}
}

// TestEnded: what an interrupt ends is no failure, what a deadline ends is one
// with a code.
func TestEnded(t *testing.T) {
	client := server(nil).client(t)
	late, stop := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer stop()
	interrupted, interrupt := context.WithCancel(t.Context())
	interrupt()
	for name, test := range map[string]struct {
		do   func(context.Context) error
		want failure.Code
	}{
		"a wait for a pod": {func(ctx context.Context) error { return client.unready(ctx, "p", ctx.Err()) }, failure.PodStartupTimeout},
		"a request while a pod is waited for": {
			func(ctx context.Context) error { return client.waitReady(ctx, &unstructured.Unstructured{}) }, failure.PodStartupTimeout,
		},
		"another round": {func(ctx context.Context) error { return ended(ctx, client.outrun(order{pool: "p"}, 3)) }, failure.WarmPoolAllocationFailed},
		"the first look": {func(ctx context.Context) error {
			_, err := client.Start(ctx)
			return err
		}, failure.WarmPoolDiscoveryFailed},
	} {
		if err := test.do(late); failure.CodeOf(err) != test.want || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s, too late: %v", name, err)
		}
		if err := test.do(interrupted); failure.CodeOf(err) != "" || !errors.Is(err, context.Canceled) {
			t.Errorf("%s, interrupted: %v", name, err)
		}
	}
}

// TestResume: a watch does not go on from where a server that was restored from a
// backup has not come yet.
func TestResume(t *testing.T) {
	client := server(func(request *http.Request) (int, string) {
		if request.URL.Query().Get("watch") != "" {
			return http.StatusOK, ""
		}
		return http.StatusOK, `{"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "50"}, "items": []}`
	}).client(t)
	from := listWatch(client.pods(), client.poolSelector(""))
	if _, err := from.WatchFuncWithContext(t.Context(), metav1.ListOptions{ResourceVersion: "51"}); !apierrors.IsResourceExpired(err) {
		t.Errorf("from where it has not come: %v", err)
	}
	events, err := from.WatchFuncWithContext(t.Context(), metav1.ListOptions{ResourceVersion: "50"})
	if err != nil {
		t.Fatalf("from where it is: %v", err)
	}
	events.Stop()
}
