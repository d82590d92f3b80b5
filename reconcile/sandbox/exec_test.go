package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/schema"
)

// TestExecRefused: where WebSocket is refused, SPDY is tried, and what the
// server says then is the error.
func TestExecRefused(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n"}}
	for name, test := range map[string]struct {
		code            int
		reason, message string
		want            failure.Code
		words           string
	}{
		"the pod has gone": {404, "NotFound", `pods "p" not found`, failure.PodNotFound, "pod p in namespace n does not exist"},
		"no permission": {403, "Forbidden", `pods "p" is forbidden: User "eve" cannot create resource "pods/exec" in API group "" in the namespace "n"`,
			failure.NamespaceAccessDenied, "eve"},
		"no container": {500, "InternalError", `container not found ("sandbox")`, failure.ExecFailed, "container not found"},
		"no node":      {500, "InternalError", "error dialing backend: dial tcp 10.0.0.1:10250: connect: connection refused", failure.ExecConnectionFailed, "error dialing backend"},
	} {
		var methods []string
		server := httptest.NewServer(http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
			methods = append(methods, request.Method)
			if got := request.URL.Query()["command"]; !slices.Equal(got, []string{"echo", "a b", "$(c)"}) {
				t.Errorf("the command arrives as %q", got)
			}
			response.Header().Set("Content-Type", "application/json")
			response.WriteHeader(test.code)
			fmt.Fprintf(response, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": %d, "reason": %q, "message": %q}`, test.code, test.reason, test.message)
		}))
		client, err := New(&rest.Config{Host: server.URL}, &schema.Fleet{Name: "f", Namespace: "n"})
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.Exec(t.Context(), pod, Command{Args: []string{"echo", "a b", "$(c)"}, Stdout: io.Discard})
		server.Close()
		if failure.CodeOf(err) != test.want || !strings.Contains(err.Error(), test.words) {
			t.Errorf("%s: %v", name, err)
		}
		if !slices.Equal(methods, []string{http.MethodGet, http.MethodPost}) {
			t.Errorf("%s: the requests are %v", name, methods)
		}
	}
}

// TestExecGivenUp: that the time of a command was over has a code, an interrupt
// is none.
func TestExecGivenUp(t *testing.T) {
	late, stop := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer stop()
	interrupted, interrupt := context.WithCancel(t.Context())
	interrupt()
	client, err := New(&rest.Config{Host: "http://127.0.0.1:1"}, &schema.Fleet{Name: "f", Namespace: "n"})
	if err != nil {
		t.Fatal(err)
	}
	command := Command{Args: []string{"echo"}, Stdout: io.Discard}
	if _, err := client.Exec(late, &corev1.Pod{}, command); failure.CodeOf(err) != failure.ExecTimeout {
		t.Errorf("too late: %v", err)
	}
	if _, err := client.Exec(interrupted, &corev1.Pod{}, command); failure.CodeOf(err) != "" || !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

// TestMissingProgram: what the runtime says of a program that is not there is
// known by more than its words, and for tmux has a code of its own.
func TestMissingProgram(t *testing.T) {
	pod := &corev1.Pod{}
	err := execError(errors.New(`exec failed: exec: "tmux": executable file not found in $PATH`), pod, Command{Args: []string{"tmux"}})
	if failure.CodeOf(err) != failure.ExecFailed || !errors.Is(err, errNoProgram) {
		t.Errorf("it is %v", err)
	}
	if failure.CodeOf(tmuxMissing(err, pod)) != failure.TmuxCreationFailed {
		t.Errorf("of tmux it is %v", tmuxMissing(err, pod))
	}
	other := execError(errors.New("exec failed: there is no program left to say"), pod, Command{Args: []string{"tmux"}})
	if tmuxMissing(other, pod) != other {
		t.Errorf("another error became %v", tmuxMissing(other, pod))
	}
}

// TestGate: what comes after the end reaches nobody.
func TestGate(t *testing.T) {
	var out strings.Builder
	gate := newGate(&out)
	if _, err := gate.writer().Write([]byte("in time")); err != nil {
		t.Error(err)
	}
	gate.close()
	if _, err := gate.Write([]byte("late")); err == nil || out.String() != "in time" {
		t.Errorf("%q was written, %v", out.String(), err)
	}
	if newGate(nil).writer() != nil {
		t.Error("a gate to nothing is something")
	}
}
