package audit

import "golang.org/x/sys/windows"

// lockFile keeps other processes from appending meanwhile: by a byte that no
// log reaches, as Windows' locks also keep others from reading.
func lockFile(fd uintptr) error {
	return windows.LockFileEx(windows.Handle(fd), windows.LOCKFILE_EXCLUSIVE_LOCK, 0, 1, 0, farAway())
}

func unlockFile(fd uintptr) error {
	return windows.UnlockFileEx(windows.Handle(fd), 0, 1, 0, farAway())
}

func farAway() *windows.Overlapped { return &windows.Overlapped{OffsetHigh: 1 << 30} }
