package pool

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// rendered is a fleet's one pool.
func rendered(t testing.TB, settings string) render.Pool {
	t.Helper()
	fleets, found := schema.Load([]string{"-"}, strings.NewReader(`
apiVersion: agentpane.io/v1alpha1
kind: SandboxFleet
name: f
templates: {t: {image: "i:1", workspace: {emptyDir: 1Gi}}}
pools: {p: {template: t, `+settings+`}}
`))
	if found.HasErrors() {
		t.Fatal(found)
	}
	pools, err := render.Pools(fleets[0])
	if err != nil {
		t.Fatal(err)
	}
	return pools[0]
}

// parsePods makes pods of words as "0:ready" or "3:old,node=n": slot and kind.
// They are made a minute ago, one after the other.
func parsePods(t testing.TB, p render.Pool, words string) []Pod {
	t.Helper()
	var pods []Pod
	for i, word := range strings.Fields(words) {
		var slot int
		kind := ""
		if _, err := fmt.Sscanf(word, "%d:%s", &slot, &kind); err != nil {
			t.Fatalf("%q: %v", word, err)
		}
		pod := Pod{
			Name: p.PodName(slot), Blueprint: p.Hash, ResourceVersion: "1",
			Created: now.Add(-time.Minute + time.Duration(i)*time.Second), Since: now.Add(-50 * time.Second),
		}
		pod.UID = types.UID("uid of " + pod.Name)
		switch kind {
		case "ready":
			pod.Ready = true
		case "starting":
		case "late":
			pod.Created, pod.Since = now.Add(-StartTimeout-time.Second), now.Add(-StartTimeout-time.Second)
		case "unready": // for a moment, of an old pod
			pod.Created, pod.Since = now.Add(-time.Hour), now.Add(-time.Second)
		case "full":
			pod.Created, pod.Since, pod.Unschedulable = now.Add(-time.Hour), now.Add(-time.Hour), true
		case "failed":
			pod.Ended = "Evicted"
		case "going":
			pod.Ready, pod.Going = true, true
		case "old":
			pod.Ready, pod.Blueprint = true, "another"
		case "old-starting":
			pod.Blueprint = "another"
		case "drained":
			pod.Ready, pod.Node = true, "cordoned"
		case "evicted":
			pod.Ready, pod.Evicted = true, true
		case "kept":
			pod.Ready, pod.KeepUntil = true, now.Add(time.Minute)
		case "claimed":
			pod.Ready, pod.Claim = true, &Claim{Sandbox: "s", At: now.Add(-30 * time.Second)}
		case "claimed-now":
			pod.Ready, pod.Claim = true, &Claim{Sandbox: "s", At: now}
		default:
			t.Fatalf("there is no kind %q", kind)
		}
		pods = append(pods, pod)
	}
	return pods
}

func TestLevel(t *testing.T) {
	const fixed = "min: 2, max: 4, autoscale: false"
	for name, test := range map[string]struct {
		pool, pods string
		adopting   int
		from, to   int
		create     []int
		remove     []string // slot and reason
	}{
		"an empty pool is filled":               {pool: fixed, to: 2, create: []int{0, 1}},
		"a full one is left alone":              {pool: fixed, pods: "0:ready 1:ready", from: 2, to: 2},
		"a starting one counts":                 {pool: fixed, pods: "0:ready 1:starting", from: 2, to: 2},
		"claimed ones are replaced":             {pool: fixed, pods: "0:claimed 1:ready", from: 1, to: 2, create: []int{2}},
		"what will be adopted is replaced":      {pool: fixed, pods: "0:ready 1:ready", adopting: 2, from: 2, to: 2, create: []int{2, 3}},
		"never more than max":                   {pool: fixed, pods: "0:claimed 1:claimed 2:claimed", to: 1, create: []int{3}},
		"max is reached":                        {pool: fixed, pods: "0:claimed 1:claimed 2:claimed 3:claimed", to: 0},
		"one that is going keeps its slot":      {pool: fixed, pods: "0:going 1:going 2:claimed", to: 2, create: []int{3}},
		"a failed one is replaced":              {pool: fixed, pods: "0:failed 1:ready", from: 1, to: 2, create: []int{2}, remove: []string{"0 it has ended (Evicted)"}},
		"a late one is replaced":                {pool: fixed, pods: "0:late 1:ready", from: 1, to: 2, create: []int{2}, remove: []string{"0 it has not been ready for 2m1s"}},
		"one without a node is waited for":      {pool: fixed, pods: "0:full 1:ready", from: 2, to: 2},
		"one that is unready for a moment, too": {pool: fixed, pods: "0:unready 1:ready", from: 2, to: 2},
		"the newest is one too many":            {pool: fixed, pods: "0:ready 1:ready 2:ready", from: 3, to: 2, remove: []string{"2 it is one more than the pool is to have"}},
		"but a starting one first":              {pool: fixed, pods: "0:starting 1:ready 2:ready", from: 3, to: 2, remove: []string{"0 it is one more than the pool is to have"}},
		"what was ordered in advance stays":     {pool: fixed, pods: "0:ready 1:ready 2:kept", from: 3, to: 2},
		"outdated ones wait for successors":     {pool: fixed, pods: "0:old 1:old", to: 2, create: []int{2, 3}},
		"one goes for each that is ready":       {pool: fixed, pods: "0:old 1:old 2:ready 3:starting", from: 2, to: 2, remove: []string{"0 it is outdated: its template has changed"}},
		"and the rest when all are":             {pool: fixed, pods: "1:old 2:ready 3:ready", from: 2, to: 2, remove: []string{"1 it is outdated: its template has changed"}},
		"an outdated one that starts goes":      {pool: fixed, pods: "0:old-starting 1:ready 2:ready", from: 2, to: 2, remove: []string{"0 it is outdated: its template has changed"}},
		"a full pool rolls one by one":          {pool: "min: 2, max: 2, autoscale: false", pods: "0:old 1:old", to: 2, remove: []string{"0 it is outdated: its template has changed"}},
		"and never to nothing":                  {pool: "min: 2, max: 2, autoscale: false", pods: "0:going 1:old", to: 2},
		"but where max is 1":                    {pool: "min: 1, max: 1, autoscale: false", pods: "0:old", to: 1, remove: []string{"0 it is outdated: its template has changed"}},
		"or the claimed ones leave one":         {pool: fixed, pods: "0:claimed 1:claimed 2:claimed 3:old", to: 1, remove: []string{"3 it is outdated: its template has changed"}},
		"one on a drained node is as outdated":  {pool: fixed, pods: "0:drained 1:ready", from: 1, to: 2, create: []int{2}},
		"so is one that is evicted":             {pool: fixed, pods: "0:evicted 1:ready 2:ready", from: 2, to: 2, remove: []string{"0 its node is being emptied"}},
		"a slot above max is given up":          {pool: fixed, pods: "0:ready 1:ready 7:ready", from: 2, to: 2, remove: []string{"7 it is above the pool's max, 4"}},
		"a pool can be empty":                   {pool: "min: 0, max: 4", pods: "0:ready", from: 1, to: 0, remove: []string{"0 it is one more than the pool is to have"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := rendered(t, test.pool)
			got := At(Input{Pool: p, Pods: parsePods(t, p, test.pods), Cordoned: map[string]bool{"cordoned": true}, Adopting: test.adopting, Now: now})
			var remove []string
			for _, removal := range got.Delete {
				remove = append(remove, fmt.Sprint(p.Slot(removal.Pod.Name), " ", removal.Reason))
			}
			if got.From != test.from || got.To != test.to || !cmp.Equal(got.Create, test.create) && len(got.Create)+len(test.create) > 0 || !cmp.Equal(remove, test.remove) {
				t.Errorf("%d → %d, create %v, delete %q; want %d → %d, %v, %q", got.From, got.To, got.Create, remove, test.from, test.to, test.create, test.remove)
			}
		})
	}
}

// TestRollingNeverEmpties rolls a pool by its own decisions, whatever its size,
// and whatever becomes ready first.
func TestRollingNeverEmpties(t *testing.T) {
	for _, settings := range []string{"min: 1, max: 2", "min: 2, max: 2", "min: 3, max: 4", "min: 5, max: 10"} {
		p := rendered(t, settings+", autoscale: false")
		var pods []Pod
		for slot := range p.Min {
			pods = append(pods, parsePods(t, p, fmt.Sprintf("%d:old", slot))...)
		}
		for step := 0; ; step++ {
			if step > 100 {
				t.Fatalf("%s: it does not come to an end: %+v", settings, pods)
			}
			level := At(Input{Pool: p, Pods: pods, Now: now})
			if level.Unchanged() && level.Ready == p.Min {
				break
			}
			going := map[string]bool{}
			for _, removal := range level.Delete {
				going[removal.Pod.Name] = true
			}
			var next []Pod
			ready := 0
			for _, pod := range pods {
				if pod.Going {
					continue // it has gone
				}
				pod.Going = going[pod.Name]
				if pod.Ready && !pod.Going {
					ready++
				}
				next = append(next, pod)
			}
			if ready == 0 {
				t.Fatalf("%s: nothing is ready after step %d: %+v", settings, step, next)
			}
			// The first that starts is ready by the next step.
			for i := range next {
				if !next[i].Ready && !next[i].Going {
					next[i].Ready = true
					break
				}
			}
			for _, slot := range level.Create {
				next = append(next, parsePods(t, p, fmt.Sprintf("%d:starting", slot))...)
			}
			if len(next) > p.Max {
				t.Fatalf("%s: %d pods", settings, len(next))
			}
			pods = next
		}
	}
}

func TestTarget(t *testing.T) {
	const auto = "min: 2, max: 10"
	gone := func(created, claimed, gone time.Duration) []Gone {
		return []Gone{{Created: now.Add(-created), Claimed: now.Add(-claimed), Gone: now.Add(-gone)}}
	}
	for name, test := range map[string]struct {
		pool, pods string
		gone       []Gone
		want       int
	}{
		"nothing there":                       {pool: auto, want: 2},
		"nothing claimed":                     {pool: auto, pods: "0:ready 1:ready 2:ready", want: 2},
		"without autoscaling":                 {pool: "min: 3, max: 10, autoscale: false", pods: "0:claimed 1:claimed", want: 3},
		"a high use grows, to 60 %":           {pool: "min: 0, max: 20, autoscale: {scaleUp: 0.4}", pods: "0:claimed 1:claimed 2:claimed 3:claimed 4:claimed 5:claimed", want: 0},
		"claims of the last moment count not": {pool: auto, pods: "0:claimed-now 1:claimed-now 2:ready", want: 2},
		"the middle stays":                    {pool: "min: 1, max: 20", pods: "0:claimed 1:claimed 2:ready 3:ready 4:ready", want: 3},
		"never above max":                     {pool: "min: 2, max: 3", pods: "0:claimed 1:claimed", want: 1},
		"those that are gone count":           {pool: "min: 0, max: 10", gone: gone(5*time.Minute, 5*time.Minute, 0), want: 2},
		"but not from before the window":      {pool: "min: 0, max: 10", gone: gone(time.Hour, time.Hour, 6*time.Minute), want: 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := rendered(t, test.pool)
			in := Input{Pool: p, Pods: parsePods(t, p, test.pods), State: State{Recent: test.gone}, Now: now}
			claimed := in.census().claimed
			if got := in.Target(claimed); got != test.want {
				claimed, total := in.use()
				t.Errorf("got %d, want %d (%g claimed of %g)", got, test.want, claimed, total)
			}
		})
	}
}

// TestUse: a pod that is about to go counts once, and where more have gone than are
// remembered, the average is over the time of which all are known.
func TestUse(t *testing.T) {
	p := rendered(t, "min: 0, max: 200")
	var many, burst State // one a second, of a minute each, and all at once
	for i := range recentLimit + 1 {
		gone := now.Add(time.Duration(i-recentLimit-1) * time.Second)
		claim := Pod{UID: types.UID(fmt.Sprint(i)), Created: gone.Add(-time.Minute), Claim: &Claim{At: gone.Add(-time.Minute)}}
		many.Fold(claim, gone)
		if i > 0 {
			burst.Fold(claim, now)
		}
	}
	leaving := Gone{UID: "uid of " + p.PodName(0), Created: now.Add(-time.Minute), Claimed: now.Add(-30 * time.Second), Gone: now}
	for name, test := range map[string]struct {
		pods  string
		state State
		want  float64
	}{
		"one that leaves": {"0:claimed", State{Recent: []Gone{leaving}}, 0.5},
		"many":            {"", many, 4230.0 / 101},
		"all at once":     {"", burst, 11050.0 / 160},
	} {
		in := Input{Pool: p, Pods: parsePods(t, p, test.pods), State: test.state, Now: now}
		if claimed, _ := in.use(); math.Abs(claimed-test.want) > 1e-9 {
			t.Errorf("%s: %g were claimed on average, want %g", name, claimed, test.want)
		}
	}
}

// TestTargetIsTheOriginals holds the formula to the original's, for uses that
// last the whole window.
func TestTargetIsTheOriginals(t *testing.T) {
	for _, test := range []struct{ warm, claimed, want int }{
		{warm: 0, claimed: 6, want: 4},  // use 1: ceil(6 / 0.6) = 10
		{warm: 1, claimed: 5, want: 4},  // use 0.83: ceil(5 / 0.6) = 9
		{warm: 5, claimed: 5, want: 5},  // use 0.5: as it is
		{warm: 18, claimed: 2, want: 2}, // use 0.1: max(2, ceil(1.5 × 2)) = 3, less 2, and at least min
		{warm: 9, claimed: 0, want: 2},  // use 0
	} {
		p := rendered(t, "min: 2, max: 20")
		var pods []Pod
		for i := range test.warm + test.claimed {
			pod := Pod{Name: p.PodName(i), Blueprint: p.Hash, Ready: true, Created: now.Add(-time.Hour)}
			if i < test.claimed {
				pod.Claim = &Claim{At: now.Add(-time.Hour)}
			}
			pods = append(pods, pod)
		}
		if got := (Input{Pool: p, Pods: pods, Now: now}).Target(test.claimed); got != test.want {
			t.Errorf("%d warm and %d claimed: got %d, want %d", test.warm, test.claimed, got, test.want)
		}
	}
}

func TestMetrics(t *testing.T) {
	p := rendered(t, "min: 2, max: 10")
	pods := parsePods(t, p, "0:ready 1:starting 2:claimed 3:claimed 4:going")
	pods[2].Claim.Warm, pods[2].Claim.Took = true, 10*time.Millisecond
	var state State
	gone := Pod{UID: "c", Created: now, Claim: &Claim{Warm: true, At: now, Took: 30 * time.Millisecond}}
	if !state.Fold(gone, now) || state.Fold(gone, now) {
		t.Error("a claim is to be counted once")
	}
	state, err := ReadState(state.String())
	if err != nil {
		t.Fatal(err)
	}
	got := MetricsOf(Input{Pool: p, Pods: pods, State: state, Now: now})
	want := Metrics{
		TotalPods: 4, WarmPods: 2, ReadyPods: 1, AllocatedPods: 2, UtilizationPercent: 50,
		TotalAllocations: 3, WarmPoolHits: 2, WarmPoolMisses: 1, HitRatePercent: percent(2, 3), AvgWarmAllocationMs: new(20.0),
		TargetSize: 3, MinSize: 2, MaxSize: 10,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if _, err := ReadState("{"); err == nil {
		t.Error("what cannot be read is an error")
	}
}
