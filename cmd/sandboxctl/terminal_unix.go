//go:build !windows

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// windowChanges tells whenever the terminal's size changes, until stop.
func windowChanges() (changes <-chan os.Signal, stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGWINCH)
	return signals, func() { signal.Stop(signals) }
}
