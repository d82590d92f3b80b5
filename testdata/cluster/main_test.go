package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCommandLineErrors(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"", "a command is missing"},
		{"fly", `no command "fly"`},
		{"up now", "up takes no arguments"},
		{"stop", "stop takes the name of one part"},
		{"exec", "exec takes a command"},
		{"--name a-b up", "--name"},
		{"--name abcdefghijkl up", "--name"},
		{"--network 10.0.0.0/24 up", "--network"},
		{"--network 10.0.0.1/30 up", "--network"},
		{"--network fd00::/30 up", "--network"},
		{"--dir /var/lib/cluster up", "choose another folder"},
		{"--cache /run/cluster up", "choose another folder"},
	} {
		_, _, err := parse(strings.Fields(test.args), io.Discard)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("cluster %s: got %v, want an error with %q", test.args, err, test.want)
		}
	}
}

func TestDownSparesOtherFolders(t *testing.T) {
	precious := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(precious, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	c, _, err := parse([]string{"--dir", filepath.Dir(precious), "--name", "spare", "down"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.down(); err == nil || !strings.Contains(err.Error(), "not a test cluster's folder") {
		t.Errorf("got %v, want it refused", err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
}

func TestTailIsTheEnd(t *testing.T) {
	log := filepath.Join(t.TempDir(), "part.log")
	content := strings.Repeat(strings.Repeat("x", 99)+"\n", 1000) + "the reason\n"
	if err := os.WriteFile(log, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	got := strings.Split(tail(log), "\n")
	if len(got) != 20 || got[len(got)-1] != "  the reason" {
		t.Errorf("got %d lines, the last %q", len(got), got[len(got)-1])
	}
}

// TestTemplatesFill: a template that asks for what settings do not have would
// show only when a cluster is made.
func TestTemplatesFill(t *testing.T) {
	names, err := templates()
	if err != nil || len(names) == 0 {
		t.Fatalf("got the templates %v, %v", names, err)
	}
	for _, name := range names {
		if _, err := fill(name, settings{}); err != nil {
			t.Error(err)
		}
	}
}
