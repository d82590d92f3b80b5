package reconcile

import (
	"strings"
	"testing"
)

func TestTame(t *testing.T) {
	for text, want := range map[string]string{
		"boom\n":                            "boom",
		"":                                  "",
		"\x1b[31mred\x1b[0m \u202eback\x00": "[31mred[0m back",
		"a\tb\r\n":                          "a b",
		"\xff\xfe broken":                   "broken",
		strings.Repeat("ü", 300):            strings.Repeat("ü", 300),
		strings.Repeat("ü", 301):            strings.Repeat("ü", 299) + "…",
	} {
		if got := tame(text); got != want {
			t.Errorf("tame(%q) = %q, want %q", text, got, want)
		}
	}
}
