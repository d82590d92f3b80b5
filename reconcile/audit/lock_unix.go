//go:build unix

package audit

import (
	"errors"

	"golang.org/x/sys/unix"
)

// lockFile keeps other processes from appending meanwhile.
func lockFile(fd uintptr) error {
	for {
		if err := unix.Flock(int(fd), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func unlockFile(fd uintptr) error { return unix.Flock(int(fd), unix.LOCK_UN) }
