package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/watch"
)

// watchMetrics counts what watch does. Their labels are bounded: no metric has
// the name of a sandbox.
type watchMetrics struct {
	registry  *prometheus.Registry
	reconcile *prometheus.HistogramVec
	changes   *prometheus.CounterVec
	drift     *prometheus.CounterVec
	failures  *prometheus.CounterVec
	settled   *prometheus.GaugeVec
	poolPods  *prometheus.GaugeVec
	poolStart *prometheus.HistogramVec
	claims    *prometheus.HistogramVec
}

// milliseconds are buckets from 0.1 ms to 13 s: most looks at a sandbox take
// less than one millisecond, and one that waits for a webhook takes seconds.
func milliseconds() []float64 { return prometheus.ExponentialBuckets(0.0001, 2, 18) }

// seconds are buckets from 1 s to 8.5 min.
func seconds() []float64 { return prometheus.ExponentialBuckets(1, 2, 10) }

func newWatchMetrics() *watchMetrics {
	m := &watchMetrics{
		registry: prometheus.NewRegistry(),
		reconcile: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sandboxctl_reconcile_duration_seconds", Help: "How long a look at one sandbox, or at a fleet's rules, took.", Buckets: milliseconds(),
		}, []string{"fleet", "result"}),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sandboxctl_changes_total", Help: "Objects that were made, changed or told to go.",
		}, []string{"fleet", "kind", "action"}),
		drift: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sandboxctl_drift_total", Help: "Objects that were found to differ from the file.",
		}, []string{"fleet", "kind", "action"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sandboxctl_failures_total", Help: "Looks that ended with an error, by its code.",
		}, []string{"fleet", "code"}),
		settled: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sandboxctl_settled_timestamp_seconds", Help: "When the cluster was last found to be as the file says after a change.",
		}, []string{"fleet"}),
		poolPods: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sandboxctl_pool_pods", Help: "Pods of a pool: ready and starting, which nobody has yet, and claimed.",
		}, []string{"fleet", "pool", "state"}),
		poolStart: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sandboxctl_pool_pod_start_seconds", Help: "How long a pool's pod took to become ready, in whole seconds as the server has them.", Buckets: seconds(),
		}, []string{"fleet", "pool"}),
		claims: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sandboxctl_claim_duration_seconds", Help: "How long a claim took to its write.", Buckets: milliseconds(),
		}, []string{"fleet", "pool", "origin"}),
	}
	m.registry.MustRegister(m.reconcile, m.changes, m.drift, m.failures, m.settled, m.poolPods, m.poolStart, m.claims,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *watchMetrics) event(event watch.Event) {
	switch event.Type {
	case watch.Reconciled:
		result := "ok"
		if event.Err != nil {
			result = "error"
			m.failures.WithLabelValues(event.Fleet, string(failure.CodeOf(event.Err))).Inc()
		}
		m.reconcile.WithLabelValues(event.Fleet, result).Observe(event.Took.Seconds())
	case watch.Changed:
		m.changes.WithLabelValues(event.Fleet, event.Ref.Kind, string(event.Action)).Inc()
	case watch.Drift:
		m.drift.WithLabelValues(event.Fleet, event.Ref.Kind, string(event.Action)).Inc()
	case watch.Claimed:
		m.claims.WithLabelValues(event.Fleet, event.Pool, event.Message).Observe(event.Took.Seconds())
	case watch.Ready:
		if event.Pool != "" {
			m.poolStart.WithLabelValues(event.Fleet, event.Pool).Observe(event.Took.Seconds())
		}
	case watch.PoolSeen:
		for state, n := range map[string]int{"ready": event.Pods.Ready, "starting": event.Pods.Starting, "claimed": event.Pods.Claimed} {
			m.poolPods.WithLabelValues(event.Fleet, event.Pool, state).Set(float64(n))
		}
	case watch.Settled:
		m.settled.WithLabelValues(event.Fleet).Set(float64(event.Time.Unix()))
	}
}

// serve serves metrics and health until ctx ends.
func serve(ctx context.Context, address string, keeper *keeper) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(keeper.metrics.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !keeper.ready() {
			http.Error(w, "not every fleet is as its file says yet", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	const headerTimeout = 10 * time.Second
	server := &http.Server{Handler: mux, ReadHeaderTimeout: headerTimeout}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("--listen: %w", err)
	case <-ctx.Done():
	}
	err = server.Close()
	<-ended
	return errors.Join(context.Cause(ctx), err)
}
