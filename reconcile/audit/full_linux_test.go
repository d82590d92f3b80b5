//go:build integration

package audit_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/agentpane/sandboxctl/reconcile/audit"
)

// TestFullDisk: on a file system that becomes full (a small tmpfs, which needs
// root) what is under way is still recorded, then nothing more may be begun,
// and the log stays whole; and once there is room, it goes on.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=512k"); err != nil {
		t.Fatalf("mounting a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "audit.log")
	log, err := audit.Open(path, clock)
	if err != nil {
		t.Fatal(err)
	}
	record := audit.Record{Event: audit.PodCreated, About: audit.About{ResourceName: strings.Repeat("p", 200)}}
	done := 0
	for log.Ready() == nil { // a change begins
		if err := log.Append(record); err != nil {
			t.Fatalf("change %d was made and not recorded: %v", done, err)
		}
		done++
		if done > 10_000 {
			t.Fatal("the disk does not become full")
		}
	}
	err = log.Ready()
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(fmt.Sprint(err), "nothing is changed") {
		t.Errorf("got %v, want a refusal that says why", err)
	}
	// Others that were under way at that time can still be recorded, until
	// what was set aside is used up; then what fails leaves nothing behind.
	for log.Append(record) == nil {
		done++
	}
	if report := verified(t, path); !report.OK() || report.Records != done {
		t.Errorf("got %d records, %v; want the %d that were reported done", report.Records, report.Found, done)
	}
	if err := os.Truncate(path, 0); err != nil { // as a rotation by hand does
		t.Fatal(err)
	}
	if err := errors.Join(log.Ready(), log.Append(record)); err != nil {
		t.Errorf("there is room again, and yet: %v", err)
	}
	if err := log.Close(); err != nil {
		t.Error(err)
	}
	if report := verified(t, path); !report.OK() || report.Records != 1 {
		t.Errorf("got %+v", report)
	}
}
