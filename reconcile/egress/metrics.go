package egress

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the gateway's. No label holds a name that a client chose.
type metrics struct {
	connections, denied, questions, bytes, failures *prometheus.CounterVec
	active, asking                                  prometheus.Gauge
	dials                                           prometheus.Histogram

	turns atomic.Uint32
}

func newMetrics(register prometheus.Registerer) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sandboxctl_egress_" + name, Help: help}, labels)
	}
	m := &metrics{
		connections: counter("connections_total", "Connections and HTTP requests that were forwarded.", "protocol"),
		denied:      counter("denied_total", "What was refused, or cut.", "protocol", "reason"),
		questions:   counter("dns_questions_total", "DNS questions, by what became of them.", "result"),
		bytes:       counter("bytes_total", "Bytes that were forwarded.", "direction"),
		failures:    counter("failures_total", "What the gateway itself failed to do.", "what"),
		active: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sandboxctl_egress_connections", Help: "Connections that there are.",
		}),
		asking: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sandboxctl_egress_dns_passing", Help: "DNS questions that the cluster's DNS has to answer now.",
		}),
		dials: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sandboxctl_egress_dial_seconds", Help: "Time to resolve a name and connect to it.",
			Buckets: []float64{.001, .005, .01, .05, .1, .5, 1, 5, 15},
		}),
	}
	if register != nil {
		register.MustRegister(m.connections, m.denied, m.questions, m.bytes, m.failures, m.active, m.asking, m.dials)
	}
	return m
}

// turn has the addresses of a name take turns.
func (m *metrics) turn() int { return int(m.turns.Add(1) % (1 << 16)) }
