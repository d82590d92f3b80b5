package main

import (
	"testing"

	"github.com/agentpane/sandboxctl/schema"
)

// TestWhatAWatcherCanTakeOver: what it does not watch, it cannot keep.
func TestWhatAWatcherCanTakeOver(t *testing.T) {
	fleet := func(mode schema.EgressMode, namespace string, pools int) *schema.Fleet {
		return &schema.Fleet{Namespace: namespace, Egress: schema.FleetEgress{Mode: mode}, Pools: make([]schema.Pool, pools)}
	}
	for name, test := range map[string]struct {
		before, now *schema.Fleet
		fits        bool
	}{
		"the same":               {fleet(schema.Gateway, "n", 1), fleet(schema.Gateway, "n", 2), true},
		"another namespace":      {fleet(schema.Gateway, "n", 0), fleet(schema.Gateway, "m", 0), false},
		"a first pool":           {fleet(schema.Gateway, "n", 0), fleet(schema.Gateway, "n", 1), false},
		"Cilium's policies":      {fleet(schema.Gateway, "n", 0), fleet(schema.Cilium, "n", 0), false},
		"they are to go":         {fleet(schema.Cilium, "n", 0), fleet(schema.Gateway, "n", 0), true},
		"Cilium's, as they were": {fleet(schema.Cilium, "n", 0), fleet(schema.Cilium, "n", 0), true},
	} {
		if got := newKept(test.before).fits(test.now); got != test.fits {
			t.Errorf("%s: it can take it over: %v", name, got)
		}
	}
}
