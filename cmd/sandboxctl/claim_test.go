package main

import (
	"testing"
	"time"

	"github.com/agentpane/sandboxctl/reconcile/claim"
)

// TestNotTakenOver: what a second claim of a name asks for in vain is told.
func TestNotTakenOver(t *testing.T) {
	for _, test := range []struct {
		differs  []string
		ttlGiven bool
		want     string
	}{
		{nil, false, ""},
		{[]string{"project", "env A"}, false, "api is as it was claimed before; not taken over: --project, --env A.\n"},
		{nil, true, "api is as it was claimed before; not taken over: --ttl. To have it last longer: --renew.\n"},
	} {
		expectText(t, "what is told", notTakenOver(claim.Sandbox{Name: "api", Differs: test.differs}, test.ttlGiven), test.want)
	}
}

// TestMoment: a time that people read has its zone.
func TestMoment(t *testing.T) {
	zone := time.FixedZone("CET", 3600)
	expectText(t, "a moment", moment(time.Date(2026, 11, 26, 4, 23, 11, 0, time.UTC), zone), "2026-11-26 05:23:11 CET")
}
