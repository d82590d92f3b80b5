//go:build integration

package main

import (
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

// What `make soak` does more of than `make test`.

// soaking: everything is tried, not the part that is quick.
func soaking() bool { return os.Getenv("SANDBOXCTL_SOAK") != "" }

// span is how long something goes on: a while, and longer when soaking.
func span(quick, soak time.Duration) time.Duration {
	if soaking() {
		return soak
	}
	return quick
}

// seeds are so many for the plans of a run, from SANDBOXCTL_SOAK_SEED on.
func (r trial) seeds(n int) []uint64 {
	r.Helper()
	first := uint64(0)
	if given := os.Getenv("SANDBOXCTL_SOAK_SEED"); given != "" {
		var err error
		first, err = strconv.ParseUint(given, 10, 64)
		r.must(err)
	}
	seeds := make([]uint64, n)
	for i := range seeds {
		seeds[i] = first + uint64(i)
	}
	return seeds
}

// tally counts what was tried, for the summary of `make soak`.
type tally struct {
	*testing.T
	what string
	done atomic.Int64
	left atomic.Int64
}

// newTally begins to count, and tells the count when the test has ended.
func newTally(t *testing.T, what string) *tally {
	counted := &tally{T: t, what: what}
	t.Cleanup(func() {
		text := fmt.Sprintf("%d %s", counted.done.Load(), what)
		if left := counted.left.Load(); left > 0 {
			text += fmt.Sprintf(", %d left for lack of time", left)
		}
		t.Logf("summary: %s: %s", t.Name(), text)
	})
	return counted
}

// try does one more, unless the time for soaking is nearly over.
func (t *tally) try(do func()) {
	const most = 5 * time.Minute // that one may take
	if deadline, limited := t.Deadline(); soaking() && limited && time.Until(deadline) < most {
		t.left.Add(1)
		return
	}
	do()
	t.done.Add(1)
}
