//go:build bench && unix

package main

import (
	"os"
	"syscall"
)

// maxMemory is the most memory that an ended process had, in MiB.
func maxMemory(state *os.ProcessState) float64 {
	usage, ok := state.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0
	}
	return float64(usage.Maxrss) / 1024 // Linux counts in KiB
}
