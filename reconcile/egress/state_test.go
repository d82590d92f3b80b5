package egress

import (
	"net/netip"
	"testing"
	"time"

	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// TestOldLists: one that has gone from the file counts for as long as a pod is under
// it, however long that is, and no longer.
func TestOldLists(t *testing.T) {
	const here, gone = "here", "gone"
	first, second := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	list := render.GatewayList{Hosts: []schema.EgressRule{{Host: "allowed.test", Ports: []int32{443}}}}
	both := render.GatewayConfig{Fleet: "f", Lists: map[string]render.GatewayList{here: list, gone: list}}
	one := render.GatewayConfig{Fleet: "f", Lists: map[string]render.GatewayList{here: list}}
	for name, test := range map[string]struct {
		steps func(s *State)
		want  bool // for the first address
	}{
		"a pod is under it":        {func(s *State) { s.SetConfig(one) }, true},
		"whatever comes after":     {func(s *State) { s.SetConfig(one); s.SetPod("2", Identity{}, second); s.SetConfig(one) }, true},
		"it comes back":            {func(s *State) { s.SetConfig(one); s.SetConfig(both) }, true},
		"the pod is under another": {func(s *State) { s.SetConfig(one); s.SetPod("1", Identity{List: here}, first) }, true},
		"the pod is under none":    {func(s *State) { s.SetConfig(one); s.SetPod("1", Identity{}, first) }, false},
		"the pod has gone": {func(s *State) {
			s.SetConfig(one)
			s.SetPod("1", Identity{})
			s.SetPod("2", Identity{List: gone}, first)
		}, false},
		"another pod stays": {func(s *State) {
			s.SetPod("2", Identity{List: gone}, second)
			s.SetConfig(one)
			s.SetPod("1", Identity{})
			s.SetPod("3", Identity{List: gone}, first)
		}, true},
		"a pod that has no address yet": {func(s *State) {
			s.SetPod("1", Identity{List: gone})
			s.SetConfig(one)
			s.SetPod("1", Identity{List: gone}, first)
		}, true},
		"no pod was under it": {func(s *State) {
			s.SetPod("1", Identity{})
			s.SetConfig(one)
			s.SetPod("1", Identity{List: gone}, first)
		}, false},
		"there is no configuration": {func(s *State) { s.SetNothing("f") }, false},
		"nor was there after it":    {func(s *State) { s.SetConfig(one); s.SetNothing("f") }, false},
	} {
		now := time.Now()
		s := New(Options{Now: func() time.Time { return now }}).State
		s.SetPod("1", Identity{List: gone}, first)
		s.SetConfig(both)
		test.steps(s)
		now = now.Add(24 * time.Hour)
		if _, v := s.Authorize(first, "allowed.test", 443); (v == allowed) != test.want {
			t.Errorf("%s: %q, want it allowed: %v", name, v, test.want)
		}
		if len(s.old) > 1 || !test.want && len(s.old) > 0 {
			t.Errorf("%s: kept %v", name, s.old)
		}
	}
}
