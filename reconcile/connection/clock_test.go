package connection

import (
	"testing"
	"time"
)

func TestClock(t *testing.T) {
	for name, test := range map[string]struct {
		date       string
		took, want time.Duration
	}{
		"the same":         {"Wed, 25 Nov 2026 12:00:00 GMT", 10 * time.Millisecond, 0},
		"ahead":            {"Wed, 25 Nov 2026 11:57:00 GMT", 10 * time.Millisecond, 3 * time.Minute},
		"behind":           {"Wed, 25 Nov 2026 12:01:00 GMT", 10 * time.Millisecond, -59 * time.Second},
		"a slow answer":    {"Wed, 25 Nov 2026 11:57:00 GMT", 5 * time.Second, 0},
		"nothing about it": {"", 10 * time.Millisecond, 0},
	} {
		t.Run(name, func(t *testing.T) {
			asked := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
			c := &clock{local: func() time.Time { return asked.Add(test.took) }}
			c.hear(test.date, asked)
			if got := c.skew(); got != test.want {
				t.Errorf("ahead by %s, want %s", got, test.want)
			}
		})
	}
}
