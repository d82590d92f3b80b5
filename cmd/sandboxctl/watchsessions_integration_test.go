//go:build integration

package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/agentpane/sandboxctl/reconcile/clustertest"
	"github.com/agentpane/sandboxctl/render"
)

// TestWatchKeepsSessions: a container that ends has its sessions again as soon
// as it runs anew, and an edit of sessions alone is acted on.
func TestWatchKeepsSessions(t *testing.T) {
	s := newShell(t)
	s.declareSessions(fmt.Sprintf("      agent: {windows: [{window_name: w, panes: [%q]}]}\n", counting("a")))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan ran, 1)
	go func() { ended <- s.runWith(ctx, strings.NewReader(""), "watch") }()
	confirmed := func(want int) {
		t.Helper()
		clustertest.Eventually(t, fmt.Sprintf("%d sessions are confirmed", want), func(ctx context.Context) bool {
			if pods, err := s.cluster.Client.CoreV1().Pods(s.namespace).List(ctx, metav1.ListOptions{LabelSelector: render.SandboxIDLabel + "=api"}); err != nil || len(pods.Items) == 0 {
				return false
			}
			sessions := s.status().Sandboxes[0].Sessions
			return sessions.Confirmed && sessions.Declared == want
		})
	}
	confirmed(1)
	begun := time.Now()
	s.run("exec", "api", "--", "sh", "-c", "kill -TERM 1")
	clustertest.Eventually(t, "the command was started again", func(ctx context.Context) bool {
		return strings.Count(s.run("exec", "api", "--", "cat", "/workspace/a").stdout, "started") == 2
	})
	t.Logf("killed and back in %s", time.Since(begun).Round(10*time.Millisecond))
	confirmed(1)
	s.declareSessions(fmt.Sprintf("      agent: {windows: [{window_name: w, panes: [%q]}]}\n      more: {}\n", counting("a")))
	confirmed(2)
	if got := s.started("a"); got != 2 {
		t.Errorf("started %d times, not twice", got)
	}
	stop()
	if got := <-ended; got.code > 1 {
		t.Errorf("watch: %+v", got)
	}
}
