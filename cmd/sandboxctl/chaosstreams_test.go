//go:build integration

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"
)

// What watch sees can be late, twice, out of order or missing. A proxy does all
// of that to the events of its watches, and answers that a resource version is
// gone, as a server does whose etcd was compacted.

// seen is an event on its way through the proxy.
type seen struct {
	line []byte
	at   time.Time
}

// about names the object that the event is about.
func (s seen) about() string {
	var event struct {
		Object struct {
			Metadata struct{ Namespace, Name string }
		}
	}
	_ = json.Unmarshal(s.line, &event) // what cannot be read is about nothing
	return event.Object.Metadata.Namespace + "/" + event.Object.Metadata.Name
}

// gone is the event of a watch that cannot go on, and the status of a request
// that asks for what the server no longer has.
const (
	goneStatus = `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version","reason":"Expired","code":410}`
	goneEvent  = `{"type":"ERROR","object":` + goneStatus + "}\n"
)

// distortion is what happens to the events of one plan's watches.
type distortion struct {
	mutex sync.Mutex // protects the rest
	dice  *rand.Rand
	// left is how many watches and requests may still fail: client-go waits for
	// twice as long after each.
	left int
}

func newDistortion(seed uint64) *distortion {
	return &distortion{dice: rand.New(rand.NewPCG(seed, 2)), left: 12}
}

// fails throws the dice for something that can be done only so often.
func (d *distortion) fails(rate float64) bool {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.left == 0 || d.dice.Float64() >= rate {
		return false
	}
	d.left--
	return true
}

func (d *distortion) below(n int) int {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.dice.IntN(n)
}

// streamFault distorts a watch: it takes its events from in until that is
// closed, and passes on what it likes. When it returns, the watch ends.
type streamFault struct {
	name    string
	distort func(d *distortion, in <-chan seen, pass func([]byte))
	// refuse answers also requests, beside those that open a watch.
	refuse bool
}

func streamFaults() []streamFault {
	return []streamFault{
		{"lost", lost, false},
		{"cut off", cutOff, false},
		{"repeated", repeated, false},
		{"stale", stale, false},
		{"reordered", reordered, false},
		{"gone", compacted, true},
	}
}

// lost drops one event and passes on later ones, until it is found out: only a
// list shows what was missed.
func lost(d *distortion, in <-chan seen, pass func([]byte)) {
	var over <-chan time.Time
	for {
		select {
		case event, open := <-in:
			switch {
			case !open:
				return
			case over != nil && d.below(2) == 0:
			case over == nil && d.fails(0.3):
				over = time.After(time.Second)
			default:
				pass(event.line)
			}
		case <-over:
			pass([]byte(goneEvent))
			return
		}
	}
}

// cutOff ends a watch before an event.
func cutOff(d *distortion, in <-chan seen, pass func([]byte)) {
	for event := range in {
		if d.fails(0.3) {
			return
		}
		pass(event.line)
	}
}

func repeated(d *distortion, in <-chan seen, pass func([]byte)) {
	for event := range in {
		for range 1 + d.below(3) {
			pass(event.line)
		}
	}
}

// stale passes on each event some seconds late.
func stale(d *distortion, in <-chan seen, pass func([]byte)) {
	late := time.Duration(500+d.below(2500)) * time.Millisecond
	for event := range in {
		<-time.After(time.Until(event.at.Add(late))) // which is the fault
		pass(event.line)
	}
}

// reordered mixes the events of a moment. Those about one object stay in order,
// as any server keeps them.
func reordered(d *distortion, in <-chan seen, pass func([]byte)) {
	for event := range in {
		batch := map[string][][]byte{event.about(): {event.line}}
		names := []string{event.about()}
		for over := time.After(300 * time.Millisecond); over != nil; {
			select {
			case event, open := <-in:
				if !open {
					return
				}
				batch[event.about()] = append(batch[event.about()], event.line)
				names = append(names, event.about())
			case <-over:
				over = nil
			}
		}
		for len(names) > 0 {
			n := d.below(len(names))
			name := names[n]
			names[n], names = names[len(names)-1], names[:len(names)-1]
			pass(batch[name][0])
			batch[name] = batch[name][1:]
		}
	}
}

// compacted ends a watch by telling that its resource version is gone.
func compacted(d *distortion, in <-chan seen, pass func([]byte)) {
	for event := range in {
		if d.fails(0.3) {
			pass([]byte(goneEvent))
			return
		}
		pass(event.line)
	}
}

// before puts the fault before a proxy.
func (f streamFault) before(d *distortion) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
			query := request.URL.Query()
			version := query.Get("resourceVersion")
			asksForOld := version != "" && version != "0" || query.Get("continue") != ""
			switch {
			case f.refuse && asksForOld && d.fails(0.3):
				response.Header().Set("Content-Type", "application/json")
				response.WriteHeader(http.StatusGone)
				fmt.Fprint(response, goneStatus)
			case query.Get("watch") != "":
				f.stream(d, next, response, request)
			default:
				next.ServeHTTP(response, request)
			}
		})
	}
}

// stream passes a watch through the fault.
func (f streamFault) stream(d *distortion, next http.Handler, response http.ResponseWriter, request *http.Request) {
	ctx, end := context.WithCancel(request.Context())
	defer end()
	lines := &lines{ResponseWriter: response, events: make(chan seen, 1000), ended: ctx.Done()}
	var distorting sync.WaitGroup
	defer distorting.Wait()
	defer close(lines.events)
	distorting.Go(func() {
		defer end()
		f.distort(d, lines.events, lines.pass)
	})
	next.ServeHTTP(lines, request.WithContext(ctx))
}

// lines is the answer to a watch, of which each line goes to events and what
// comes of them is passed on; an answer that is none is passed on as it is.
type lines struct {
	http.ResponseWriter
	events chan seen
	ended  <-chan struct{}
	isNone bool
	rest   []byte // the begin of a line

	mutex sync.Mutex // held while something is written
}

func (l *lines) WriteHeader(code int) {
	l.isNone = code != http.StatusOK
	l.ResponseWriter.WriteHeader(code)
}

func (l *lines) Write(content []byte) (int, error) {
	if l.isNone {
		l.pass(content)
		return len(content), nil
	}
	l.rest = append(l.rest, content...)
	for {
		end := bytes.IndexByte(l.rest, '\n') + 1
		if end == 0 {
			return len(content), nil
		}
		line := bytes.Clone(l.rest[:end])
		l.rest = l.rest[end:]
		select {
		case l.events <- seen{line, time.Now()}:
		case <-l.ended:
			return 0, context.Canceled
		}
	}
}

// pass passes on part of the answer. Where nobody hears it any more, the
// request has ended.
func (l *lines) pass(content []byte) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	_, _ = l.ResponseWriter.Write(content)
	l.ResponseWriter.(http.Flusher).Flush()
}

// Flush has the header sent before there is an event.
func (l *lines) Flush() {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.ResponseWriter.(http.Flusher).Flush()
}

// TestStreamFaults: watch goes through a file's change while what it sees is
// distorted. All is as after a quiet run.
func TestStreamFaults(t *testing.T) {
	t.Parallel()
	seeds := 1
	if soaking() {
		seeds = 13 // for each of eight scenarios: 104 plans of each fault
	}
	plans := newTally(t, "plans")
	for _, f := range streamFaults() {
		for _, s := range tried("replace", "claim") {
			t.Run(f.name+" "+s.name, func(t *testing.T) {
				r := newTrial(t)
				want := r.quiet(s)
				for _, seed := range r.seeds(seeds) {
					plans.try(func() {
						r.survives(s, want, fmt.Sprintf("%s with seed %d", f.name, seed), f.before(newDistortion(seed)))
					})
				}
			})
		}
	}
}
