//go:build integration

package claim

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/schema"
)

// processVariable makes of the test binary a process of claimers: it holds how
// many, and the namespace.
const processVariable = "SANDBOXCTL_TEST_CLAIMERS"

func TestMain(m *testing.M) {
	if os.Getenv(processVariable) == "" {
		os.Exit(m.Run())
	}
	if err := claimers(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// claimers claims as many sandboxes at once as processVariable says, and prints
// what came of it.
func claimers() error {
	var n int
	var namespace, settings string
	if err := json.Unmarshal([]byte(os.Getenv(processVariable)), &[]any{&n, &namespace, &settings}); err != nil {
		return err
	}
	fleets, found := schema.Load([]string{"-"}, bytes.NewReader([]byte(fleetFile(namespace, settings, scratch, nowhere))))
	if found.HasErrors() {
		return fmt.Errorf("%v", found)
	}
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("SANDBOXCTL_TEST_KUBECONFIG"))
	if err != nil {
		return err
	}
	config.QPS = -1
	client, err := New(config, fleets[0], time.Now, testRandom, "a process")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	wait, err := client.Start(ctx)
	if err != nil {
		return err
	}
	fmt.Println(claimAll(ctx, client, n, func(int) Request { return Request{Pool: "p", Project: "race"} }))
	cancel()
	wait()
	return nil
}

// claimAll claims n sandboxes at once.
func claimAll(ctx context.Context, client *Client, n int, request func(int) Request) result {
	got := result{Claimed: map[string]types.UID{}}
	var mutex sync.Mutex // protects got
	var claiming sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		claiming.Go(func() {
			<-begin
			claimed, err := client.Claim(ctx, request(i))
			mutex.Lock()
			defer mutex.Unlock()
			switch {
			case failure.CodeOf(err) == failure.WarmPoolExhausted:
				got.Exhausted++
			case err != nil:
				got.Errors = append(got.Errors, err.Error())
			default:
				got.Claimed[claimed.Name] = claimed.UID
			}
		})
	}
	close(begin)
	claiming.Wait()
	return got
}

// setting is how often something is done: short, unless the variable, of a long
// version, says more.
func setting(t *testing.T, variable string, short int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return short
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

// TestRaceOfProcesses has 64 claimers in four processes want the pods of a pool
// that may have 50: each pod is one sandbox's, and there never are more.
func TestRaceOfProcesses(t *testing.T) {
	for range setting(t, "SANDBOXCTL_RACE_ROUNDS", 2) {
		g := newGround(t)
		const settings, most = "min: 0, max: 50", 50
		client := g.claimer(loadFleet(t, fleetFile(g.namespace, settings, scratch, nowhere)), nil)
		g.fill(client, 40) // ten have to be started

		results := make(chan result, 4)
		for range cap(results) {
			go func() {
				encoded, _ := json.Marshal([]any{16, g.namespace, settings}) // of plain values
				command := exec.CommandContext(t.Context(), os.Args[0])
				command.Env = append(os.Environ(), processVariable+"="+string(encoded))
				var stderr bytes.Buffer
				command.Stderr = &stderr
				out, err := command.Output()
				var got result
				if err == nil {
					err = json.Unmarshal(out, &got)
				}
				if err != nil {
					got.Errors = append(got.Errors, fmt.Sprintf("%v: %s %s", err, out, stderr.String()))
				}
				results <- got
			}()
		}
		pods := map[types.UID]string{}
		exhausted := 0
		for range cap(results) {
			got := <-results
			for name, uid := range got.Claimed {
				if other, twice := pods[uid]; twice {
					t.Errorf("%s and %s have the same pod", name, other)
				}
				pods[uid] = name
			}
			exhausted += got.Exhausted
			for _, text := range got.Errors {
				t.Error(text)
			}
		}
		if len(pods) != most || exhausted != 64-most {
			t.Errorf("%d have a pod and %d were told that there is none; want 50 and 14", len(pods), exhausted)
		}
		g.census.check(t, most)
	}
}

// lagging shows a pool as it was when it last looked, that long ago at most.
type lagging struct {
	source
	lag    time.Duration
	mutex  sync.Mutex // protects what follows
	before sighting
	looked time.Time
}

func (l *lagging) look(ctx context.Context, poolID string) (sighting, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if time.Since(l.looked) < l.lag {
		return l.before, nil
	}
	seen, err := l.source.look(ctx, poolID)
	l.before, l.looked = seen, time.Now()
	return seen, err
}

// TestRaceWithLaggingCaches claims with caches that are seconds behind, half of
// the claims under eight names that all want.
func TestRaceWithLaggingCaches(t *testing.T) {
	g := newGround(t)
	fleet := loadFleet(t, fleetFile(g.namespace, "min: 0, max: 50", scratch, nowhere))
	g.fill(g.claimer(fleet, nil), 30)
	var claiming sync.WaitGroup
	results := make([]result, 4)
	for i := range results {
		claiming.Go(func() {
			client := g.claimer(fleet, nil)
			client.source = &lagging{source: client.source, lag: 3 * time.Second}
			results[i] = claimAll(t.Context(), client, 16, func(i int) Request {
				if i%2 == 0 {
					return Request{Pool: "p", Name: fmt.Sprintf("wanted-%d", i/2)}
				}
				return Request{Pool: "p"}
			})
		})
	}
	claiming.Wait()
	named := map[string]types.UID{}
	for _, got := range results {
		for _, text := range got.Errors {
			t.Error(text)
		}
		for name, uid := range got.Claimed {
			if known, ok := named[name]; ok && known != uid {
				t.Errorf("%s is two pods", name)
			}
			named[name] = uid
		}
	}
	if len(named) != 8+4*8 { // eight names, and the rest on their own
		t.Errorf("%d sandboxes, want 40", len(named))
	}
	g.census.check(t, 50)
}

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
	t.Logf("%d claims in %s, %d of them cold", min(begun.Load(), many), time.Since(since).Round(time.Second), cold.Load())
}
