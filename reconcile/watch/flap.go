package watch

import (
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/render"
)

// An object that is corrected this often in this time has another master, and
// is left alone: at first for firstPause, then each time for twice as long.
const (
	flapCount  = 5
	flapWindow = time.Minute
	firstPause = time.Minute
	lastPause  = 15 * time.Minute
)

// flaps knows which objects are corrected again and again.
type flaps struct {
	now     func() time.Time
	mutex   sync.Mutex // protects objects
	objects map[plan.Ref]*flap
}

type flap struct {
	corrected []time.Time // within the window
	pause     time.Duration
	until     time.Time
}

func newFlaps(now func() time.Time) *flaps {
	return &flaps{now: now, objects: map[plan.Ref]*flap{}}
}

// pause is for how long an object is left alone from now on; begins tells that it
// was not before.
func (f *flaps) pause(ref plan.Ref) (pause time.Duration, begins bool) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	object, now := f.objects[ref], f.now()
	if object == nil {
		return 0, false
	}
	if wait := object.until.Sub(now); wait > 0 {
		return wait, false
	}
	if len(object.within(now)) < flapCount {
		return 0, false
	}
	object.pause = min(max(2*object.pause, firstPause), lastPause)
	object.corrected, object.until = nil, now.Add(object.pause)
	return object.pause, true
}

// corrected notes that an object was corrected, or was to be.
func (f *flaps) corrected(ref plan.Ref) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	object, now := f.objects[ref], f.now()
	if object == nil {
		object = &flap{}
		f.objects[ref] = object
	}
	if len(object.within(now)) == 0 && now.Sub(object.until) > lastPause {
		object.pause = 0 // it was quiet for long
	}
	object.corrected = append(object.corrected, now)
}

// within are the corrections that still count.
func (f *flap) within(now time.Time) []time.Time {
	f.corrected = slices.DeleteFunc(f.corrected, func(at time.Time) bool { return now.Sub(at) > flapWindow })
	return f.corrected
}

// forget begins anew, as when the file says something else.
func (f *flaps) forget() {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	clear(f.objects)
}

// othersText names the other managers of an object, the last to write first.
func othersText(object *unstructured.Unstructured) string {
	if object == nil {
		return "another manager"
	}
	entries := object.GetManagedFields()
	slices.SortStableFunc(entries, func(a, b metav1.ManagedFieldsEntry) int {
		if a.Time == nil || b.Time == nil {
			return 0
		}
		return b.Time.Compare(a.Time.Time)
	})
	var others []string
	for _, entry := range entries {
		if entry.Manager != render.Manager && entry.Subresource == "" && !slices.Contains(others, entry.Manager) {
			others = append(others, entry.Manager)
		}
	}
	if len(others) == 0 {
		return "another manager"
	}
	return strings.Join(others, ", ")
}
