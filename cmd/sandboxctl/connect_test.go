package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/agentpane/sandboxctl/schema"
)

// TestConnectPrefersFlags: what a fleet's file says counts where no flag does.
func TestConnectPrefersFlags(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"flag", "file"} {
		content := `{"current-context": "one", "clusters": [{"name": "` + name + `", "cluster": {"server": "https://api.example"}}],
			"contexts": [{"name": "one", "context": {"cluster": "` + name + `", "user": "u"}}, {"name": "two", "context": {"cluster": "` + name + `", "user": "u"}}],
			"users": [{"name": "u", "user": {}}]}`
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := schema.Cluster{Kubeconfig: filepath.Join(dir, "file"), Context: "two"}
	env := environment{lookupEnv: func(string) (string, bool) { return "", false }}
	for want, flags := range map[string]connectFlags{
		"file two": {},
		"file one": {context: "one"},
		"flag two": {kubeconfig: place(filepath.Join(dir, "flag"))},
		"flag one": {kubeconfig: place(filepath.Join(dir, "flag")), context: "one"},
	} {
		flags.requestTimeout = time.Second
		cluster, err := flags.connect(env, file)
		if err != nil {
			t.Errorf("%s: %v", want, err)
		} else if got := cluster.Name + " " + cluster.Context; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
