package pool

import (
	"math"
	"slices"
	"time"
)

// Gone is a claim whose pod is gone: it counts as long as it is in the window.
type Gone struct {
	UID     string    `json:"uid"`
	Created time.Time `json:"created"`
	Claimed time.Time `json:"claimed"`
	Gone    time.Time `json:"gone"`
	Warm    bool      `json:"warm"`
	// Milliseconds is how long the claim took.
	Milliseconds int64 `json:"ms"`
}

// targetUse is the share of the pool that is claimed when it has the size that
// it grows to, and reserve is how many pods there are for each claimed one when
// it shrinks: the original's.
const (
	targetUse = 0.6
	reserve   = 1.5
)

// Target returns how many warm pods the pool is to have beside the claimed
// ones. Without autoscaling that is its min. With it, it is what is left of the
// total that AgentPane's formula gives (use = average claimed / average total
// over the window):
//
//	use > scaleUp    ceil(claimed / 0.6)
//	use < scaleDown  max(min, ceil(1.5 × claimed))
//	else             ceil(total)
//
// within [min, max]. It is never fewer than min, and never so many that the
// pool would have more than max pods. Two things are done otherwise than there:
// the averages are over time, as the pods themselves show when they were made
// and claimed, and not over whatever events one process happened to see; and
// between the thresholds the pool does not shrink to an average of the time
// before it grew.
func (in Input) Target(claimed int) int {
	p := in.Pool
	target := p.Min
	if p.Autoscale != nil {
		averageClaimed, averageTotal := in.use()
		total := p.Min
		if averageTotal > 0 {
			switch use := averageClaimed / averageTotal; {
			case use > p.Autoscale.ScaleUp:
				total = ceil(averageClaimed / targetUse)
			case use < p.Autoscale.ScaleDown:
				total = max(p.Min, ceil(reserve*averageClaimed))
			default:
				total = max(ceil(averageTotal), in.total())
			}
		}
		target = max(p.Min, min(total, p.Max)-claimed)
	}
	return max(0, min(target, p.Max-claimed))
}

// total is how many pods count: those that are there to stay.
func (in Input) total() int {
	total := 0
	for i := range in.Pods {
		if pod := &in.Pods[i]; !pod.Going && pod.Ended == "" && pod.Blueprint == in.Pool.Hash {
			total++
		}
	}
	return total
}

// use returns how many pods were claimed and how many there were, on average
// over the window, or since the first of them was made, or since the time of which
// all that are gone are known.
func (in Input) use() (claimed, total float64) {
	window := in.Pool.Autoscale.Window.Duration
	begin := later(in.Now.Add(-window), in.State.Since)
	first := in.Now
	var claimedTime, totalTime time.Duration
	count := func(created, claimedAt, gone time.Time) {
		if gone.Before(begin) {
			return
		}
		if created.Before(first) {
			first = created
		}
		totalTime += gone.Sub(later(created, begin))
		if !claimedAt.IsZero() {
			claimedTime += max(0, gone.Sub(later(claimedAt, begin)))
		}
	}
	for i := range in.Pods {
		pod := &in.Pods[i]
		counted := slices.ContainsFunc(in.State.Recent, func(g Gone) bool { return g.UID == string(pod.UID) }) // it is about to be
		if pod.Created.After(in.Now) || counted {
			continue
		}
		var claimedAt time.Time
		if pod.Claim != nil {
			claimedAt = later(pod.Claim.At, pod.Created)
		}
		count(pod.Created, claimedAt, in.Now)
	}
	for _, gone := range in.State.Recent {
		count(gone.Created, gone.Claimed, gone.Gone)
	}
	span := in.Now.Sub(later(first, begin))
	if span <= 0 {
		return 0, 0
	}
	return float64(claimedTime) / float64(span), float64(totalTime) / float64(span)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// ceil rounds up, and takes a sum of fractions that is meant to be whole for
// that.
func ceil(value float64) int { return int(math.Ceil(value - 1e-9)) }
