package watch

import (
	"testing"
	"time"

	"github.com/agentpane/sandboxctl/reconcile/plan"
)

// TestFlaps: what is corrected often is left alone, each time for longer, until it
// was quiet for long.
func TestFlaps(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	f := newFlaps(func() time.Time { return now })
	ref := plan.Ref{Name: "a"}
	fight := func() {
		for range flapCount {
			f.corrected(ref)
		}
	}
	expect := func(when string, want time.Duration, wantBegins bool) {
		t.Helper()
		if pause, begins := f.pause(ref); pause != want || begins != wantBegins {
			t.Errorf("%s: left alone for %s (begins: %t), want %s (%t)", when, pause, begins, want, wantBegins)
		}
	}
	expect("nothing was done", 0, false)
	for range flapCount - 1 {
		f.corrected(ref)
	}
	expect("now and then", 0, false)
	f.corrected(ref)
	expect("too often", firstPause, true)
	now = now.Add(firstPause / 4)
	expect("meanwhile", firstPause*3/4, false)
	now = now.Add(firstPause)
	expect("after it", 0, false)
	fight()
	expect("a second time", 2*firstPause, true)
	now = now.Add(2*firstPause + 2*lastPause)
	fight()
	expect("after long", firstPause, true)
	now = now.Add(firstPause + time.Second)
	for range flapCount {
		f.corrected(ref)
		now = now.Add(flapWindow / (flapCount - 1))
	}
	expect("slowly", 0, false)
	if _, begins := f.pause(plan.Ref{Name: "b"}); begins {
		t.Error("another object is left alone")
	}
	fight()
	f.forget()
	expect("a new file", 0, false)
}
