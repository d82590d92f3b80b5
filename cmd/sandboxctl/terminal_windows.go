package main

import "os"

// windowChanges never tells anything: Windows has no signal for it.
func windowChanges() (changes <-chan os.Signal, stop func()) { return nil, func() {} }
