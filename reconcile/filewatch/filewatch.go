// Package filewatch tells when the content of files has changed, whichever way
// an editor, a checkout or a ConfigMap volume changes them: in place, by a
// rename, or by swapping a symbolic link somewhere on the way to them. It
// compares content and not names or times, so that nothing is reported that
// changes nothing. It never says what is in the files, and never prints.
package filewatch

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settleTime is how long nothing more must happen to the files before they
	// are read: an editor that truncates and then writes is not half-way then.
	settleTime = 20 * time.Millisecond
	// settleLimit bounds that, for files that are written without a pause.
	settleLimit = 500 * time.Millisecond
	// readLimit bounds how often files that change while they are read are read
	// again at once.
	readLimit = 5
	// sizeLimit bounds what is read of one file.
	sizeLimit = 32 << 20
)

// Watcher watches files.
type Watcher struct {
	paths   []string
	files   func() []string
	poll    time.Duration
	changed chan struct{}

	mutex sync.Mutex // protects what follows
	// told is the digest of the content that was told of last and not read yet,
	// taken that of the one that was read last.
	told, taken string
}

// New returns a watcher of the files that files returns, which lie at or below
// the paths. It asks for them anew each time that it looks. Between events it
// looks every poll, for file systems that tell of none (NFS, FUSE, mounts into
// containers).
func New(paths []string, files func() []string, poll time.Duration) *Watcher {
	return &Watcher{paths: paths, files: files, poll: poll, changed: make(chan struct{}, 1)}
}

// Changed receives a value when the content may be another than when the last
// value was received; the first is for the files as they are at the start.
func (w *Watcher) Changed() <-chan struct{} { return w.changed }

// Read calls read, which reads the files, once or until they do not change under
// it. It is for whoever has received a value: what is in the files by then may be
// yet another content, and it is that one to which the next is compared. It tells
// whether that is what was read before, too.
func (w *Watcher) Read(read func()) (same bool) {
	stable := ""
	for attempt := 0; stable == "" && attempt < readLimit; attempt++ {
		before := w.digest()
		if read(); w.digest() == before {
			stable = before
		}
	}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	same = stable != "" && stable == w.taken
	w.told, w.taken = "", stable
	return same
}

// isNew tells whether a content was neither read nor told of last.
func (w *Watcher) isNew(digest string) bool {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return digest != w.told && digest != w.taken
}

// tell tells of the content that there is, if it is new.
func (w *Watcher) tell() {
	digest := w.digest()
	if !w.isNew(digest) {
		return
	}
	w.mutex.Lock()
	w.told = digest
	w.mutex.Unlock()
	select {
	case w.changed <- struct{}{}:
	default: // it has not been received yet, and says the same
	}
}

// Run watches until ctx ends, and returns its cause. Where the system has no
// events to give, it goes on by looking every poll.
func (w *Watcher) Run(ctx context.Context) error {
	var events <-chan fsnotify.Event
	var faults <-chan error
	follow := func() {}
	if notify, err := fsnotify.NewWatcher(); err == nil {
		defer notify.Close()
		events, faults = notify.Events, notify.Errors
		follow = func() {
			for _, directory := range w.directories() {
				_ = notify.Add(directory) // one that is not there (any more) is looked for at the next poll
			}
		}
	}
	poll := time.NewTicker(w.poll)
	defer poll.Stop()
	var settled <-chan time.Time
	var unsettledSince time.Time
	look := func() {
		settled = nil
		follow() // before reading: what changes after it is told of
		w.tell()
	}
	settle := func() {
		if settled == nil {
			unsettledSince = time.Now()
		}
		if time.Since(unsettledSince) < settleLimit {
			settled = time.After(settleTime)
		}
	}
	look()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-events:
			settle()
		case <-faults: // events were lost
			look()
		case <-settled:
			look()
		case <-poll.C:
			if follow(); settled == nil && w.isNew(w.digest()) {
				settle() // it may be half-way, and its event on the way
			}
		}
	}
}

// digest is a hash of the files' names and content, and of why one cannot be
// read.
func (w *Watcher) digest() string {
	hash := sha256.New()
	for _, name := range w.files() {
		fmt.Fprintf(hash, "%q ", name)
		if err := hashFile(hash, name); err != nil {
			fmt.Fprintf(hash, "%q", err)
		}
	}
	return string(hash.Sum(nil))
}

func hashFile(hash io.Writer, name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() { // opening a pipe could wait for ever
		return fmt.Errorf("it is %s", info.Mode().Type())
	}
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	size, err := io.Copy(hash, io.LimitReader(file, sizeLimit))
	fmt.Fprintf(hash, " %d ", size)
	return err
}

// directories are those in which an event can change what is read: that of each
// file, and that of each symbolic link on the way to it.
func (w *Watcher) directories() []string {
	seen := map[string]bool{}
	for _, path := range append(w.files(), w.paths...) {
		absolute, err := filepath.Abs(path)
		if err != nil {
			continue // the working directory has gone
		}
		const hops = 40 // as Linux's own bound on symbolic links (path_resolution(7))
		along(absolute, seen, hops)
		if info, err := os.Stat(absolute); err == nil && info.IsDir() {
			seen[absolute] = true
		}
	}
	var directories []string
	for directory := range seen {
		directories = append(directories, directory)
	}
	return directories
}

// along notes the directories on the way to an absolute path.
func along(path string, seen map[string]bool, hops int) {
	at := string(filepath.Separator)
	names := strings.Split(strings.Trim(path, at), at)
	for i, name := range names {
		next := filepath.Join(at, name)
		target, err := os.Readlink(next)
		isLink := err == nil
		if isLink || i == len(names)-1 {
			seen[at] = true
		}
		if isLink && hops > 0 {
			if !filepath.IsAbs(target) {
				target = filepath.Join(at, target)
			}
			along(filepath.Join(append([]string{target}, names[i+1:]...)...), seen, hops-1)
			return
		}
		at = next
	}
}
