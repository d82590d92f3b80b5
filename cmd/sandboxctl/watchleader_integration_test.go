//go:build integration

package main

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TestTwoWatches: they do not get into each other's way, and what comes of it
// is the same.
func TestTwoWatches(t *testing.T) {
	r := newTrial(t)
	file := r.file("", "  a: {template: t}\n  b: {template: t}\n  c: {template: t}\n")
	one, two := r.watch(file), r.watch(file)
	one.settled()
	two.settled()
	created := map[types.UID]bool{}
	list, err := r.cluster.Client.CoreV1().Pods(r.namespace).List(r.Context(), metav1.ListOptions{})
	r.must(err)
	for _, pod := range list.Items {
		created[pod.UID] = true
	}
	if len(created) != 3 {
		t.Errorf("%d pods, want 3", len(created))
	}
	one.end()
	two.end()
	r.noChanges(file)
}

// twoToLead starts two watches of a file, of which the first leads.
func twoToLead(one, other trial, file string) (first, second *watching) {
	one.Helper()
	one.user, other.user = "first", "second"
	first = one.watch(file, "--leader-elect")
	first.settled()
	second = other.watch(file, "--leader-elect")
	second.await("msg", "its leader is first@")
	return first, second
}

// TestLeaseThatIsLost: of two watches one leads. It loses its Lease while it
// cannot reach the cluster, the other takes over, and the first one comes back
// to see that: it writes nothing more.
func TestLeaseThatIsLost(t *testing.T) {
	r := newTrial(t)
	file := r.file("", oneSandbox)
	cutOff, line := r.as(r.kubeconfig)
	first, second := twoToLead(cutOff, r, file)
	counted, stop := r.countPods()

	line.cut(true)
	r.removePolicy()
	second.await("msg", "its leader is second@")
	second.await("event", "changed", "kind", "NetworkPolicy", "action", "create")
	second.settled()
	line.mend()
	first.await("msg", "its leader is second@")
	first.drain()
	told := len(first.seen)
	r.removePolicy()
	second.await("event", "changed", "kind", "NetworkPolicy", "action", "create")
	second.settled()
	first.drain()
	for _, record := range first.seen[told:] {
		if strings.Contains(record, `"event":"changed"`) {
			t.Errorf("the one that lost its Lease changed something: %s", record)
		}
	}
	first.end()
	second.end()
	stop()
	r.were(counted, 0, 0)
	r.noChanges(file)
}

// TestLeaseThatIsLostInTheMiddle of a change, whose lock cannot be given back:
// that is told, and the one that lost its Lease leads again in its turn.
func TestLeaseThatIsLostInTheMiddle(t *testing.T) {
	r := newTrial(t)
	file := r.file("", oneSandbox)
	cutOff, line := r.as(r.kubeconfig)
	cutOff, _ = cutOff.as(cutOff.kubeconfig) // what follows stands before that line
	var breaks atomic.Bool
	cutOff.kubeconfig = cutOff.throughProxy(func(request *http.Request) bool {
		makes := request.Method == http.MethodPatch && strings.Contains(request.URL.Path, "/networkpolicies/") && !request.URL.Query().Has("dryRun")
		if makes && breaks.CompareAndSwap(true, false) {
			line.cut(true)
		}
		return true
	})
	first, second := twoToLead(cutOff, r, file)

	breaks.Store(true)
	r.removePolicy()
	first.await("level", "ERROR", "msg", "releasing the fleet's lock")
	second.await("msg", "its leader is second@")
	line.mend()
	second.await("event", "changed", "kind", "NetworkPolicy", "action", "create") // when the lock has ended
	second.settled()
	first.await("msg", "its leader is second@")
	second.end()
	first.await("msg", "its leader is first@")
	first.settled()
	r.removePolicy()
	first.await("event", "changed", "kind", "NetworkPolicy", "action", "create")
	first.settled()
	first.end()
	r.noChanges(file)
}
