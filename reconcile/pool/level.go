package pool

import (
	"fmt"
	"slices"
	"time"

	"github.com/agentpane/sandboxctl/render"
)

// StartTimeout is how long a warm pod may be unready, from its start or since
// it last was ready, before another takes its place: the original's time to
// start. One for which no node has room is not replaced: another would find
// none either.
const StartTimeout = 120 * time.Second

// Input is everything that a pool's level depends on.
type Input struct {
	Pool render.Pool
	// Pods are all pods of the pool, claimed or not; those of others are left out.
	Pods []Pod
	// Cordoned are the nodes that take no pods any more.
	Cordoned map[string]bool
	// Adopting is how many ready pods will be taken before the level is reached.
	Adopting int
	// State is what no pod shows any more.
	State State
	Now   time.Time
}

// Level is what is to become of a pool.
type Level struct {
	// From is how many warm pods there are which are as they should be,
	// starting or ready; Ready is how many of them are ready. To is how many
	// there are to be.
	From, Ready, To int
	// Create are the free slots that get a pod.
	Create []int
	// Delete are the pods that go.
	Delete []Removal
}

// Removal is a warm pod that goes.
type Removal struct {
	Pod    Pod
	Reason string
}

// Unchanged tells whether the pool is as it should be.
func (l Level) Unchanged() bool { return len(l.Create)+len(l.Delete) == 0 }

// census is a pool's warm pods by what they are worth.
type census struct {
	// ready and starting are as they should be; worn are outdated, above max or
	// on nodes that are being emptied, and serve until their successors do.
	ready, starting, worn []*Pod
	removed               []Removal
	// taken are the slots that have a pod, of whatever kind.
	taken   map[int]bool
	claimed int
}

// At decides what becomes of the pool.
func At(in Input) Level {
	c := in.census()
	level := Level{From: len(c.ready) + len(c.starting), Ready: len(c.ready), Delete: c.removed, To: in.Target(c.claimed)}
	free := in.freeSlots(c.taken)
	current := level.From - in.Adopting
	missing := max(0, level.To-current)
	level.Create = free[:min(missing, len(free))]
	level.Delete = append(level.Delete, in.surplus(c, current-level.To)...)
	level.Delete = append(level.Delete, in.retire(c, level, missing)...)
	return level
}

// census sorts the pool's pods.
func (in Input) census() census {
	c := census{taken: map[int]bool{}}
	for i := range in.Pods {
		pod := &in.Pods[i]
		slot := in.Pool.Slot(pod.Name)
		c.taken[slot] = true
		switch why := in.unfit(pod); {
		case pod.Claim != nil:
			if !pod.Going {
				c.claimed++
			}
		case pod.Going: // it only keeps its slot
		case why != "":
			c.removed = append(c.removed, Removal{*pod, why})
		case in.wear(pod, slot) != "":
			c.worn = append(c.worn, pod)
		case pod.Ready:
			c.ready = append(c.ready, pod)
		default:
			c.starting = append(c.starting, pod)
		}
	}
	for _, pods := range [][]*Pod{c.ready, c.starting, c.worn} {
		byAge(pods)
	}
	slices.SortFunc(c.removed, func(a, b Removal) int { return compareNames(a.Pod.Name, b.Pod.Name) })
	return c
}

// unfit says why a warm pod is of no use to anybody; empty when it may be.
func (in Input) unfit(pod *Pod) string {
	switch {
	case pod.Ended != "":
		return "it has ended (" + pod.Ended + ")"
	case pod.Ready || pod.Unschedulable:
		return ""
	}
	since := pod.Created
	if pod.Since.After(since) {
		since = pod.Since
	}
	if unready := in.Now.Sub(since); unready > StartTimeout {
		return "it has not been ready for " + unready.Round(time.Second).String()
	}
	return ""
}

// wear says why a warm pod is to be replaced when its successor is there.
func (in Input) wear(pod *Pod, slot int) string {
	switch {
	case pod.Blueprint != in.Pool.Hash:
		return "it is outdated: its template has changed"
	case !pod.healthy(in.Cordoned):
		return "its node is being emptied"
	case slot < 0 || slot >= in.Pool.Max:
		return fmt.Sprintf("it is above the pool's max, %d", in.Pool.Max)
	}
	return ""
}

func (in Input) freeSlots(taken map[int]bool) []int {
	var free []int
	for slot := range in.Pool.Max {
		if !taken[slot] {
			free = append(free, slot)
		}
	}
	return free
}

// surplus are n pods of those that are as they should be: those first that
// nobody could claim yet, and then the newest. What was ordered in advance stays
// until its time is over.
func (in Input) surplus(c census, n int) []Removal {
	var removed []Removal
	for _, pod := range slices.Concat(c.starting, c.ready) {
		if in.Now.Before(pod.KeepUntil) {
			n--
		}
	}
	for _, pods := range [][]*Pod{c.starting, c.ready} {
		for _, pod := range slices.Backward(pods) {
			if len(removed) < n && !in.Now.Before(pod.KeepUntil) {
				removed = append(removed, Removal{*pod, "it is one more than the pool is to have"})
			}
		}
	}
	return removed
}

// retire are the worn pods that can go: those that are not ready themselves, as
// many as have a ready successor, and, where the pool is full, one after the
// other to make room for theirs, as long as another one is there to be claimed.
func (in Input) retire(c census, level Level, missing int) []Removal {
	ready := 0
	for _, pod := range c.worn {
		if pod.Ready {
			ready++
		}
	}
	// Those that are about to be adopted are nobody's successors.
	serving := max(0, len(c.ready)-in.Adopting) + ready
	spare := max(0, serving-level.To)
	if room := missing - len(level.Create); room > 0 {
		spare = max(spare, min(room, serving-1))
		if in.Pool.Max-c.claimed == 1 && len(c.starting) == 0 {
			spare = max(spare, 1) // the claimed ones leave no other way
		}
	}
	var removed []Removal
	for _, pod := range c.worn {
		switch {
		case !pod.Ready:
		case spare > 0:
			spare--
		default:
			continue
		}
		removed = append(removed, Removal{*pod, in.wear(pod, in.Pool.Slot(pod.Name))})
	}
	return removed
}
