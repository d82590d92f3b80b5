package filewatch_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/agentpane/sandboxctl/reconcile/filewatch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// never is a poll that does not come: what is seen was told by an event.
const never = time.Hour

// watch runs a watcher of one file and returns what waits for its next change.
func watch(t *testing.T, path string, poll time.Duration) (changed func(what string), quiet func(what string)) {
	t.Helper()
	_, changed, quiet = watcherOf(t, path, poll)
	return changed, quiet
}

// watcherOf is watch, with the watcher itself.
func watcherOf(t *testing.T, path string, poll time.Duration) (watcher *filewatch.Watcher, changed func(what string), quiet func(what string)) {
	t.Helper()
	watcher = filewatch.New([]string{path}, func() []string { return []string{path} }, poll)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- watcher.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
	changed = func(what string) {
		t.Helper()
		select {
		case <-watcher.Changed():
		case <-time.After(10 * time.Second):
			t.Fatalf("%s was not noticed", what)
		}
	}
	quiet = func(what string) {
		t.Helper()
		select {
		case <-watcher.Changed():
			t.Fatalf("%s was taken for a change", what)
		case <-time.After(200 * time.Millisecond):
		}
	}
	changed("the file at the start")
	return watcher, changed, quiet
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestEveryWayToSaveAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sandboxes.yaml")
	write(t, path, "one")
	changed, quiet := watch(t, path, never)

	write(t, path, "two")
	changed("writing in place")
	for _, content := range []string{"three", "four"} { // a watch of the file itself would see the first only
		write(t, path+"~", content)
		must(t, os.Rename(path+"~", path))
		changed("an atomic rename")
	}
	write(t, path, "four")
	must(t, os.Chtimes(path, time.Time{}, time.Now()))
	quiet("writing the same again")
	must(t, os.Remove(path))
	changed("its removal")
	write(t, path, "four")
	changed("its return")
}

// TestConfigMapVolume: the kubelet swaps the link ..data, and no event names
// the file.
func TestConfigMapVolume(t *testing.T) {
	volume := t.TempDir()
	version := func(name, content string) {
		must(t, os.Mkdir(filepath.Join(volume, name), 0o700))
		write(t, filepath.Join(volume, name, "sandboxes.yaml"), content)
		must(t, os.Symlink(name, filepath.Join(volume, "..data_tmp")))
		must(t, os.Rename(filepath.Join(volume, "..data_tmp"), filepath.Join(volume, "..data")))
	}
	version("..v1", "one")
	must(t, os.Symlink("..data/sandboxes.yaml", filepath.Join(volume, "sandboxes.yaml")))
	changed, _ := watch(t, filepath.Join(volume, "sandboxes.yaml"), never)
	for _, name := range []string{"..v2", "..v3"} {
		version(name, name)
		changed("the swap to " + name)
	}
}

// TestLinkOnTheWay: a checkout may be swapped as a whole, by a link above it.
func TestLinkOnTheWay(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"a", "b"} {
		must(t, os.MkdirAll(filepath.Join(root, name, "team"), 0o700))
		write(t, filepath.Join(root, name, "team", "sandboxes.yaml"), name)
	}
	link := filepath.Join(root, "current")
	must(t, os.Symlink("a", link))
	changed, _ := watch(t, filepath.Join(link, "team", "sandboxes.yaml"), never)
	must(t, os.Symlink("b", link+"~"))
	must(t, os.Rename(link+"~", link))
	changed("the swap")
	write(t, filepath.Join(root, "b", "team", "sandboxes.yaml"), "new")
	changed("an edit behind the new link")
}

// TestPoll: a directory that came into being after the start tells of nothing.
func TestPoll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "later", "sandboxes.yaml")
	changed, _ := watch(t, path, 10*time.Millisecond)
	must(t, os.Mkdir(filepath.Dir(path), 0o700))
	write(t, path, "one")
	changed("a file in a new directory")
}

// TestWhatIsReadCounts: a content that was told of is replaced before it is read,
// and comes back.
func TestWhatIsReadCounts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sandboxes.yaml")
	write(t, path, "one")
	watcher, changed, quiet := watcherOf(t, path, never)
	read := ""
	reads := func() {
		content, err := os.ReadFile(path)
		must(t, err)
		read = string(content)
	}
	watcher.Read(reads)
	quiet("what was read")
	if !watcher.Read(reads) {
		t.Error("what was read twice is taken for two")
	}

	write(t, path, "two")
	changed("the change")
	write(t, path, "three")
	if watcher.Read(reads) {
		t.Error("another content is taken for the same")
	}
	write(t, path, "two")
	for read != "two" {
		changed("the return of what was told of, and never read")
		watcher.Read(reads)
	}

	times := 0
	watcher.Read(func() {
		if times++; times == 1 {
			write(t, path, "four")
		}
		reads()
	})
	if times != 2 || read != "four" {
		t.Errorf("a file that changes while it is read was read %d times, and is %q", times, read)
	}
}

// TestLinkToItself must not turn for ever.
func TestLinkToItself(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sandboxes.yaml")
	must(t, os.Symlink(path, path))
	changed, _ := watch(t, path, never)
	must(t, os.Remove(path))
	write(t, path, "one")
	changed("the file in the link's place")
}
