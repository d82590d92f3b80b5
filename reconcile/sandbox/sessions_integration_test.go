//go:build integration

package sandbox

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/agentpane/sandboxctl/reconcile/clustertest"
	"github.com/agentpane/sandboxctl/reconcile/session"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// TestSessionOfPeople: a session that somebody makes between the look at a
// sandbox and the change is left as it is; another one is made all the same.
func TestSessionOfPeople(t *testing.T) {
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
