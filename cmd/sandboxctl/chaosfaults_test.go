//go:build integration

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"
)

// fault is a way in which a request fails.
type fault struct {
	name string
	fail func(next http.Handler, response http.ResponseWriter, request *http.Request)
}

func faults() []fault {
	status := func(code int, headers ...string) func(http.Handler, http.ResponseWriter, *http.Request) {
		return func(_ http.Handler, response http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(headers); i += 2 {
				response.Header().Set(headers[i], headers[i+1])
			}
			http.Error(response, http.StatusText(code), code)
		}
	}
	return []fault{
		{"500", status(http.StatusInternalServerError)},
		{"503", status(http.StatusServiceUnavailable)},
		{"429", status(http.StatusTooManyRequests, "Retry-After", "1")},
		{"reset", func(http.Handler, http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		{"lost answer", func(next http.Handler, _ http.ResponseWriter, request *http.Request) {
			next.ServeHTTP(discard{}, bounded(request))
			panic(http.ErrAbortHandler)
		}},
		{"cut short", func(next http.Handler, response http.ResponseWriter, request *http.Request) {
			next.ServeHTTP(&cut{ResponseWriter: response, left: 200}, bounded(request))
			panic(http.ErrAbortHandler)
		}},
		{"slow", func(next http.Handler, response http.ResponseWriter, request *http.Request) {
			select {
			case <-time.After(300 * time.Millisecond):
			case <-request.Context().Done():
			}
			next.ServeHTTP(response, request)
		}},
	}
}

// bounded is a request that ends: a watch of which nothing is passed on would
// last.
func bounded(request *http.Request) *http.Request {
	ctx, cancel := context.WithTimeout(request.Context(), time.Second)
	context.AfterFunc(ctx, cancel)
	return request.WithContext(ctx)
}

// cut passes on the first bytes of an answer.
type cut struct {
	http.ResponseWriter
	left int
}

func (c *cut) Write(content []byte) (int, error) {
	part := content[:min(len(content), c.left)]
	c.left -= len(part)
	if _, err := c.ResponseWriter.Write(part); err != nil {
		return 0, err
	}
	if flusher, ok := c.ResponseWriter.(http.Flusher); ok {
		flusher.Flush()
	}
	if c.left == 0 {
		panic(http.ErrAbortHandler)
	}
	return len(content), nil
}

// TestFaults: watch goes through a file's change while requests fail, at
// several rates; when they no longer do, all is as after a quiet run.
func TestFaults(t *testing.T) {
	t.Parallel()
	rates, seeds := []float64{0.2}, 1
	if soaking() {
		rates, seeds = []float64{0.05, 0.2, 0.5}, 4 // for 7 faults and 8 scenarios: 672 plans
	}
	plans := newTally(t, "plans")
	for _, f := range faults() {
		for _, s := range tried("replace") {
			t.Run(f.name+" "+s.name, func(t *testing.T) {
				r := newTrial(t)
				want := r.quiet(s)
				for _, rate := range rates {
					for _, seed := range r.seeds(seeds) {
						plans.try(func() { r.withFaults(f, s, rate, seed, want) })
					}
				}
			})
		}
	}
}

func (r trial) withFaults(f fault, s scenario, rate float64, seed uint64, want map[string]string) {
	r.Helper()
	var mutex sync.Mutex // protects dice
	dice := rand.New(rand.NewPCG(seed, 1))
	const most = 60 // then the network is well again
	left := most
	r.survives(s, want, fmt.Sprintf("%s at rate %v with seed %d", f.name, rate, seed), func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
			mutex.Lock()
			fails := left > 0 && dice.Float64() < rate
			if left > 0 {
				left--
			}
			mutex.Unlock()
			if fails {
				f.fail(next, response, request)
				return
			}
			next.ServeHTTP(response, request)
		})
	})
}

// survives has watch go through a scenario behind a proxy with what is put
// before it, and applies the oracles.
func (r trial) survives(s scenario, want map[string]string, plan string, before func(http.Handler) http.Handler) {
	r.Helper()
	file := r.prepare(s)
	counted, stop := r.countPods()
	faulty := r
	faulty.kubeconfig = r.through(before)
	w := faulty.watch(file, "--events=false", "--poll=100ms")
	w.settled()
	w.end()
	stop()
	r.check(s, file, want, counted)
	r.done(r.run("destroy", "--yes", "-f", file))
	if r.Failed() {
		r.Fatal(plan)
	}
}
