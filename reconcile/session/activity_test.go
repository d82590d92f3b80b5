package session

import (
	"testing"
	"time"
)

func TestParseActivity(t *testing.T) {
	now := time.Unix(2000, 0)
	for name, test := range map[string]struct {
		output string
		want   time.Time
	}{
		"nothing":          {"", time.Time{}},
		"sessions":         {"s|1000\ns|900\n", time.Unix(1000, 0)},
		"a window printed": {"s|1000\nw|1500\nw|7\n", time.Unix(1500, 0)},
		"attached":         {"s|1000\ns|900\nw|1500\nc\n", now},
		"rubbish":          {"s|x|1000|\nw|\x1b[2J\n\n|||\nw|12\nw", time.Unix(12, 0)},
		"carriage returns": {"s|1000\r\n", time.Unix(1000, 0)},
	} {
		if got := ParseActivity(test.output, now); !got.Equal(test.want) {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}
