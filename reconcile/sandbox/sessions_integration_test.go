//go:build integration

package sandbox

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/agentpane/sandboxctl/reconcile/clustertest"
	"github.com/agentpane/sandboxctl/reconcile/session"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// running is a sandbox's pod, and a client for it.
func running(t *testing.T) (*Client, *corev1.Pod) {
	t.Helper()
	cluster := clustertest.Connect(t)
	namespace := cluster.Namespace(t, nil)
	pod := cluster.Run(t, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "api", Namespace: namespace, Labels: map[string]string{render.SandboxIDLabel: "api"}},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: new(int64(0)),
			Containers: []corev1.Container{{
				Name: render.ContainerName, Image: clustertest.SandboxImage, ImagePullPolicy: corev1.PullNever,
				Command: []string{"sleep", "infinity"},
			}},
		},
	})
	client, err := New(cluster.Config, &schema.Fleet{Name: "f", Namespace: namespace})
	if err != nil {
		t.Fatal(err)
	}
	return client, pod
}

// TestSessionOfPeople: a session that somebody makes between the look at a
// sandbox and the change is left as it is; another one is made all the same.
func TestSessionOfPeople(t *testing.T) {
	client, pod := running(t)
	shell := schema.Pane{StartDirectory: "/", Restart: schema.Never}
	windows := []schema.Window{{Name: "main", Layout: "tiled", Panes: []schema.Pane{shell, shell}}}
	want := session.Desired{Sessions: []schema.Session{
		{Name: "agent", StartDirectory: "/", Windows: windows}, {Name: "other", StartDirectory: "/", Windows: windows},
	}}
	seen, err := client.Sessions(t.Context(), pod)
	if err != nil {
		t.Fatal(err)
	}
	options := session.Options{Now: time.Now(), Token: session.Token("a test")}
	made, err := session.Make(want, seen, options)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := client.Output(t.Context(), pod, Command{
		Args: []string{"tmux", "new-session", "-d", "-s", "agent", "sleep 86400", ";", "list-panes", "-a", "-F", "#{session_id} #{window_id} #{pane_id}"},
	}, outputLimit)
	if err != nil || theirs.Code != 0 {
		t.Fatalf("%+v, %v", theirs, err)
	}
	if err := client.ChangeSessions(t.Context(), pod, made.File); err == nil || !strings.Contains(err.Error(), "duplicate session: agent") {
		t.Errorf("the change says %v", err)
	}
	now, err := client.Sessions(t.Context(), pod)
	if err != nil {
		t.Fatal(err)
	}
	agent := now.Session("agent")
	if agent == nil || agent.Mark != "" || len(agent.Windows) != 1 || len(agent.Windows[0].Panes) != 1 {
		t.Fatalf("theirs is %+v", agent)
	}
	if got := agent.ID + " " + agent.Windows[0].ID + " " + agent.Windows[0].Panes[0].ID; got != strings.TrimSpace(theirs.Stdout) {
		t.Errorf("theirs was %s, and is %s", theirs.Stdout, got)
	}
	rest, err := session.Make(want, now, options)
	if err != nil || len(rest.Changes) != 0 || len(rest.Blocked) != 1 {
		t.Errorf("left to be done is %+v, %v", rest, err)
	}
}

// TestActivityOfClients: a client of tmux is use, but one of attach, which can
// be left behind, is not: its pod says by itself that it is used.
func TestActivityOfClients(t *testing.T) {
	client, pod := running(t)
	now := time.Now().Add(time.Hour)
	activity := func() time.Time {
		t.Helper()
		at, err := client.Activity(t.Context(), pod, now)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	if at := activity(); !at.IsZero() {
		t.Errorf("without tmux: %s", at)
	}
	made, err := client.Output(t.Context(), pod, Command{Args: []string{"tmux", "new-session", "-d", "-s", "agent", "sleep 86400"}}, outputLimit)
	if err != nil || made.Code != 0 {
		t.Fatalf("%+v, %v", made, err)
	}
	attach := func(mark string, want int) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		var over sync.WaitGroup
		defer over.Wait()
		defer cancel() // the client stays attached
		over.Go(func() {
			_, _ = client.Exec(ctx, pod, Command{Args: session.Target{Session: "agent"}.AttachCommand("xterm"), TTY: true, Stdin: blocked{ctx}, Stdout: io.Discard, Mark: mark})
		})
		clustertest.Eventually(t, fmt.Sprintf("%d are attached", want), func(ctx context.Context) bool {
			state, err := client.Sessions(ctx, pod)
			return err == nil && state.Session("agent").Attached == want
		})
	}
	attach("lost", 1)
	if at := activity(); at.IsZero() || at.Equal(now) {
		t.Errorf("with a client of attach: %s", at)
	}
	attach("", 2)
	if at := activity(); !at.Equal(now) {
		t.Errorf("with another client: %s, want %s", at, now)
	}
}

// blocked is an input on which nothing comes until the end.
type blocked struct{ ctx context.Context }

func (b blocked) Read([]byte) (int, error) {
	<-b.ctx.Done()
	return 0, io.EOF
}
