//go:build integration

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// saver saves a file in every way that there is, and in some in which nobody
// should.
type saver struct {
	trial
	file string
	dice *rand.Rand
	made int // files beside it
}

// beside writes another file in the same folder.
func (s *saver) beside(content string) (path string) {
	s.made++
	path = filepath.Join(filepath.Dir(s.file), fmt.Sprintf(".version-%d", s.made))
	s.must(os.WriteFile(path, []byte(content), 0o600))
	return path
}

// part is the content, cut short somewhere after the fleet's namespace.
func (s *saver) part(content string) string {
	from := strings.Index(content, "templates:")
	return content[:from+s.dice.IntN(len(content)-1-from)]
}

// save saves the content.
func (s *saver) save(content string) {
	switch s.dice.IntN(5) {
	case 0: // in place
		s.must(os.WriteFile(s.file, []byte(content), 0o600))
	case 1: // in place, half at first
		s.must(os.WriteFile(s.file, []byte(s.part(content)), 0o600))
		<-time.After(time.Duration(s.dice.IntN(50)) * time.Millisecond) // a slow writer
		s.must(os.WriteFile(s.file, []byte(content), 0o600))
	case 2: // by an atomic rename
		s.must(os.Rename(s.beside(content), s.file))
	case 3: // by a symbolic link that is swapped, as a ConfigMap's
		link := s.file + "~"
		s.must(os.Symlink(s.beside(content), link))
		s.must(os.Rename(link, s.file))
	case 4: // gone, and there again
		s.must(os.Remove(s.file))
		<-time.After(time.Duration(s.dice.IntN(50)) * time.Millisecond) // a slow writer
		s.must(os.WriteFile(s.file, []byte(content), 0o600))
	}
}

// TestFileRaces: ten saves a second, each in another way, with broken ones
// between. No pod suffers from any, and what was saved last is in force.
func TestFileRaces(t *testing.T) {
	r := newTrial(t)
	sandboxes := func(label string) string {
		return fmt.Sprintf("  {a: {template: t, labels: {x: %q}}, b: {template: t}}\n", label) // which no part of is valid
	}
	file := r.file("", sandboxes("first"))
	first, err := os.ReadFile(file)
	r.must(err)
	w := r.watch(file, "--poll=100ms")
	w.settled()
	counted, stop := r.countPods()
	seed := r.seeds(1)[0]
	t.Logf("seed %d", seed)
	s := &saver{trial: r, file: file, dice: rand.New(rand.NewPCG(seed, 3))}
	last := ""
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	saves := int(span(5*time.Second, time.Minute) / (100 * time.Millisecond))
	for n := range saves {
		<-tick.C
		last = fmt.Sprintf("save-%d", n)
		content := strings.Replace(string(first), `"first"`, fmt.Sprintf("%q", last), 1)
		if n < saves-1 && s.dice.IntN(4) == 0 {
			s.must(os.WriteFile(file, []byte(s.part(content)), 0o600)) // and stays so until the next
			continue
		}
		s.save(content)
	}
	w.await("event", "changed", "sandbox", "a", "action", "update")
	r.eventually("what was saved last is in force", func(ctx context.Context) bool { return r.podOf("a").Labels["x"] == last })
	w.settled()
	w.end()
	stop()
	r.were(counted, 0, 0)
	r.noChanges(file)
}

// TestFileThatIsWrittenSlowly: its first half is a valid file that has a sandbox
// less, which does not go for that. One that the whole file no longer has goes.
func TestFileThatIsWrittenSlowly(t *testing.T) {
	r := newTrial(t)
	file := r.file("", "  a: {template: t}\n  b: {template: t}\n")
	w := r.watch(file)
	w.settled()
	counted, stop := r.countPods()
	first, err := os.ReadFile(file)
	r.must(err)
	half, rest, _ := strings.Cut(strings.Replace(string(first), "a: {", "a: {labels: {x: y}, ", 1), "  b:")
	r.must(os.WriteFile(file, []byte(half), 0o600))
	<-time.After(300 * time.Millisecond) // a slow writer
	r.must(os.WriteFile(file, []byte(half+"  b:"+rest), 0o600))
	w.await("event", "changed", "sandbox", "a", "action", "update")
	w.settled()
	r.were(counted, 0, 0)

	r.must(os.WriteFile(file, []byte(half), 0o600))
	w.await("event", "changed", "sandbox", "b", "action", "delete")
	w.settled()
	w.end()
	stop()
	r.were(counted, 0, 1)
	r.noChanges(file)
}
