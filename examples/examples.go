// Package examples holds files that people copy, as they stand; the program
// has those in it that it writes or builds from. It does nothing with them.
package examples

import _ "embed" // the files are part of the program

//go:embed starter/sandboxes.yaml
var starter string

// Starter returns the fleet file that a new project begins with.
func Starter() string { return starter }
