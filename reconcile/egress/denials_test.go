package egress

import (
	"fmt"
	"testing"

	"github.com/agentpane/sandboxctl/reconcile/audit"
)

// TestDenialsAreBounded: what is not recorded at once is counted, whatever it is.
func TestDenialsAreBounded(t *testing.T) {
	d := newDenials(nil)
	recorded, counted := 0, 0
	refuse := func(client, host string) (first bool) {
		first = d.first(audit.About{ResourceName: client}, audit.Denial{Host: host})
		if first {
			recorded++
		}
		return first
	}
	take := func() (records int) {
		for _, denials := range d.take() {
			for _, denial := range denials {
				records++
				counted += denial.Repeated
			}
		}
		return records
	}
	for i := range 1000 {
		refuse("a", fmt.Sprint(i))
	}
	for range 5 {
		refuse("a", "0")
	}
	if records := take(); recorded != distinct || records != 2 || recorded+counted != 1005 {
		t.Errorf("%d are recorded, and %d counted in %d records", recorded, counted, records)
	}
	if refuse("a", "0") {
		t.Error("what goes on is recorded anew at once, and not in its time")
	}
	if !refuse("a", "1") {
		t.Error("what had ended is not recorded when it comes again")
	}
	take()

	recorded, counted = 0, 0
	for i := range clientsKept + 10 {
		refuse(fmt.Sprint("client ", i), "x")
	}
	take()
	if recorded > clientsKept || recorded+counted != clientsKept+10 {
		t.Errorf("%d clients: %d are recorded, and %d counted", clientsKept+10, recorded, counted)
	}
	take()
	if len(d.clients) > 0 {
		t.Errorf("%d are remembered for ever", len(d.clients))
	}
}
