// Package process follows processes that outlive the program that started
// them, by a file with their process id. It never looks processes up by name.
package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// killTimeout bounds the time between SIGKILL and the end of a process: only
// a process stuck in the kernel takes longer.
const killTimeout = 30 * time.Second

// File is the path of a file that holds a process's id and start time. The
// start time tells the process from a later one that was given the same id.
type File string

// Write records the process pid.
func (f File) Write(pid int) error {
	start, _, ok := stat(pid)
	if !ok {
		return fmt.Errorf("process %d ended at once", pid)
	}
	temporary := string(f) + ".new"
	if err := os.WriteFile(temporary, fmt.Appendf(nil, "%d %s\n", pid, start), 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, string(f))
}

// Pid is the id of the recorded process; ok is false when it is gone, or when
// the file is missing or broken.
func (f File) Pid() (pid int, ok bool) {
	pid, ok, _ = f.read()
	return pid, ok
}

// Alive tells whether the recorded process is there.
func (f File) Alive() bool {
	_, ok := f.Pid()
	return ok
}

// Exists tells whether a process was recorded and not ended by Stop or Kill.
func (f File) Exists() bool {
	_, err := os.Stat(string(f))
	return err == nil
}

// Paused tells whether the recorded process is stopped by SIGSTOP.
func (f File) Paused() bool {
	_, ok, state := f.read()
	return ok && state == "T"
}

func (f File) read() (pid int, ok bool, state string) {
	content, err := os.ReadFile(string(f))
	if err != nil {
		return 0, false, ""
	}
	id, start, _ := strings.Cut(strings.TrimSpace(string(content)), " ")
	pid, err = strconv.Atoi(id)
	if err != nil {
		return 0, false, ""
	}
	started, state, ok := stat(pid)
	return pid, ok && started == start, state
}

// Signal sends a signal to the recorded process; it is an error if that is
// gone.
func (f File) Signal(signal unix.Signal) error {
	pid, ok := f.Pid()
	if !ok {
		return fmt.Errorf("%s is not running", f.name())
	}
	return unix.Kill(pid, signal)
}

// Kill ends the recorded process at once, waits until it is gone, and removes
// the file. A process that is gone already is no error.
func (f File) Kill() error { return f.Stop(0) }

// Stop ends the recorded process with SIGTERM, or with SIGKILL after grace,
// and is otherwise as Kill.
func (f File) Stop(grace time.Duration) error {
	pid, ok := f.Pid()
	if !ok {
		return f.Forget()
	}
	// A file descriptor of the process cannot come to mean another one.
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		if errors.Is(err, unix.ESRCH) {
			return f.Forget()
		}
		return fmt.Errorf("following %s (process %d): %w", f.name(), pid, err)
	}
	defer unix.Close(fd)
	if grace > 0 {
		// A paused process would not see the signal.
		if err := errors.Join(send(fd, unix.SIGTERM), send(fd, unix.SIGCONT)); err != nil {
			return err
		}
	}
	if grace <= 0 || !ended(fd, grace) {
		if err := send(fd, unix.SIGKILL); err != nil {
			return err
		}
		if !ended(fd, killTimeout) {
			return fmt.Errorf("%s (process %d) does not end", f.name(), pid)
		}
	}
	return f.Forget()
}

func (f File) name() string {
	return strings.TrimSuffix(filepath.Base(string(f)), ".pid")
}

// Forget removes the record and leaves the process alone.
func (f File) Forget() error {
	if err := os.Remove(string(f)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func send(fd int, signal unix.Signal) error {
	if err := unix.PidfdSendSignal(fd, signal, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// ended waits until the process behind fd is gone, at most timeout.
func ended(fd int, timeout time.Duration) bool {
	deadline := time.Now().Add(timeout)
	for {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, int(time.Until(deadline).Milliseconds()))
		if n > 0 || !errors.Is(err, unix.EINTR) {
			return n > 0
		}
	}
}

// stat reads a process's start time and state (proc_pid_stat(5)). A zombie
// counts as gone.
func stat(pid int) (start, state string, ok bool) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", "", false
	}
	// The second field, the command, may hold spaces and parentheses.
	_, rest, _ := strings.Cut(string(content), ") ")
	if i := strings.LastIndex(string(content), ") "); i >= 0 {
		rest = string(content)[i+2:]
	}
	fields := strings.Fields(rest)
	const startField = 19 // field 22 of the file, counted from the third
	if len(fields) <= startField {
		return "", "", false
	}
	return fields[startField], fields[0], fields[0] != "Z" && fields[0] != "X"
}
