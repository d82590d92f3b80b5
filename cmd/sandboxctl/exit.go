package main

import "fmt"

// exitCode is an error that only sets the exit code: there is nothing to print.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }
