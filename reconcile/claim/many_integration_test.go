//go:build integration

package claim

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestManyClaims has 64 claimers take pods and give them back, while the pool is
// refilled as fast, until SANDBOXCTL_RACE_CLAIMS sandboxes were claimed. They
// share four clients; one of those sees the pool as it was a while ago.
func TestManyClaims(t *testing.T) {
	const clients, perClient, warm = 4, 16, 100
	const most = 1000                     // slots enough for all that choose one at once
	const behind = 300 * time.Millisecond // ten claims, of 30 a second
	many := int64(setting(t, "SANDBOXCTL_RACE_CLAIMS", 200))
	g := newGround(t)
	fleet := loadFleet(t, fleetFile(g.namespace, fmt.Sprintf("min: 0, max: %d", most), scratch, nowhere))
	filler := g.claimer(fleet, nil)
	g.fill(filler, warm)
	defer g.start(filler)()

	var begun, cold atomic.Int64
	var sandboxes sync.Map // by the uid of their pod
	claimOne := func(client *Client) {
		claimed, err := client.Claim(t.Context(), Request{Pool: "p"})
		if err != nil {
			t.Error(err)
			return
		}
		if other, twice := sandboxes.LoadOrStore(claimed.UID, claimed.Name); twice {
			t.Errorf("%s and %s have the same pod", claimed.Name, other)
		}
		if err := g.client.CoreV1().Pods(g.namespace).Delete(t.Context(), claimed.Pod, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
		if !claimed.Warm {
			cold.Add(1)
			return
		}
		for added := 0; added == 0 && err == nil; {
			if added, err = filler.Prewarm(t.Context(), "p", 1, time.Hour); err != nil {
				t.Error(err)
			}
		}
	}

	var claiming sync.WaitGroup
	since := time.Now()
	for i := range clients {
		client := g.claimer(fleet, nil)
		if i == 0 {
			client.source = &lagging{source: client.source, lag: behind}
		} else {
			defer g.start(client)()
		}
		for range perClient {
			claiming.Go(func() {
				for begun.Add(1) <= many && !t.Failed() {
					claimOne(client)
				}
			})
		}
	}
	claiming.Wait()
	g.census.check(t, most)
	t.Logf("%d claims in %s, %d of them cold", many, time.Since(since).Round(time.Second), cold.Load())
}
