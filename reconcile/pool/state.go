package pool

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// State is what of a pool no pod shows any more. It is kept in the cluster, in
// the fleet's ConfigMap of that name, under the pool's name.
type State struct {
	// Hits and Misses count the claims whose pods are gone, and the sandboxes that
	// had to start on a pod of their own.
	Hits   int64 `json:"hits"`
	Misses int64 `json:"misses"`
	// Recent are the last of them, the oldest first: all that went after Since.
	Recent []Gone    `json:"recent,omitempty"`
	Since  time.Time `json:"since,omitzero"`
}

// recentLimit is how many claims the original took its mean over.
const recentLimit = 100

// ReadState reads a state; an empty text is the state of a pool that was never
// claimed from.
func ReadState(text string) (State, error) {
	var state State
	if text == "" {
		return state, nil
	}
	if err := json.Unmarshal([]byte(text), &state); err != nil {
		return State{}, fmt.Errorf("the state of a pool cannot be read: %w", err)
	}
	return state, nil
}

// String is the state as ReadState reads it.
func (s State) String() string {
	encoded, err := json.Marshal(s)
	if err != nil {
		panic(err) // of numbers, times and strings
	}
	return string(encoded)
}

// Fold adds a claimed pod that goes now; false when it is in it already, or was
// claimed by nobody.
func (s *State) Fold(pod Pod, now time.Time) bool {
	if pod.Claim == nil || slices.ContainsFunc(s.Recent, func(g Gone) bool { return g.UID == string(pod.UID) }) {
		return false
	}
	if pod.Claim.Warm {
		s.Hits++
	} else {
		s.Misses++
	}
	s.Recent = append(s.Recent, Gone{
		UID: string(pod.UID), Created: pod.Created.UTC(), Claimed: pod.Claim.At.UTC(), Gone: now.UTC(),
		Warm: pod.Claim.Warm, Milliseconds: pod.Claim.Took.Milliseconds(),
	})
	if over := len(s.Recent) - recentLimit; over > 0 {
		s.Since = s.Recent[over-1].Gone
		s.Recent = slices.Delete(s.Recent, 0, over)
	}
	return true
}

// Metrics are the original's, by its names.
type Metrics struct {
	TotalPods          int     `json:"totalPods"`
	WarmPods           int     `json:"warmPods"`
	ReadyPods          int     `json:"readyPods"`
	AllocatedPods      int     `json:"allocatedPods"`
	UtilizationPercent float64 `json:"utilizationPercent"`
	TotalAllocations   int64   `json:"totalAllocations"`
	WarmPoolHits       int64   `json:"warmPoolHits"`
	WarmPoolMisses     int64   `json:"warmPoolMisses"`
	HitRatePercent     float64 `json:"hitRatePercent"`
	// AvgWarmAllocationMs is the mean of the last 100 that were hits; null when
	// there was none.
	AvgWarmAllocationMs *float64 `json:"avgWarmAllocationMs"`
	TargetSize          int      `json:"targetSize"`
	MinSize             int      `json:"minSize"`
	MaxSize             int      `json:"maxSize"`
}

// MetricsOf are the pool's metrics: what its pods show, and the state of what is
// gone. Terminating pods are no longer counted as the pool's.
func MetricsOf(in Input) Metrics {
	state := in.State
	level := At(in)
	m := Metrics{MinSize: in.Pool.Min, MaxSize: in.Pool.Max, WarmPoolHits: state.Hits, WarmPoolMisses: state.Misses}
	took := slices.Clone(state.Recent)
	for i := range in.Pods {
		pod := &in.Pods[i]
		folded := slices.ContainsFunc(state.Recent, func(g Gone) bool { return g.UID == string(pod.UID) })
		switch {
		case pod.Going || folded:
		case pod.Claim == nil && pod.Ended == "":
			m.WarmPods++
			if pod.Usable(in.Pool.Hash, in.Cordoned) {
				m.ReadyPods++
			}
		case pod.Claim != nil:
			m.AllocatedPods++
			took = append(took, Gone{Claimed: pod.Claim.At, Warm: pod.Claim.Warm, Milliseconds: pod.Claim.Took.Milliseconds()})
			if pod.Claim.Warm {
				m.WarmPoolHits++
			} else {
				m.WarmPoolMisses++
			}
		}
	}
	m.TotalPods, m.TargetSize = m.WarmPods+m.AllocatedPods, level.To
	m.TotalAllocations = m.WarmPoolHits + m.WarmPoolMisses
	m.UtilizationPercent = percent(int64(m.AllocatedPods), int64(m.TotalPods))
	m.HitRatePercent = percent(m.WarmPoolHits, m.TotalAllocations)
	m.AvgWarmAllocationMs = meanOfLast(took)
	return m
}

func percent(part, whole int64) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole) * 100
}

// meanOfLast is the mean time of the last hits.
func meanOfLast(claims []Gone) *float64 {
	claims = slices.DeleteFunc(claims, func(g Gone) bool { return !g.Warm })
	slices.SortStableFunc(claims, func(a, b Gone) int { return a.Claimed.Compare(b.Claimed) })
	claims = claims[max(0, len(claims)-recentLimit):]
	if len(claims) == 0 {
		return nil
	}
	var sum int64
	for _, claim := range claims {
		sum += claim.Milliseconds
	}
	return new(float64(sum) / float64(len(claims)))
}
