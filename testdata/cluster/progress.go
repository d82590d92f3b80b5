package main

import (
	"fmt"
	"io"
	"time"
)

// progress prints what is being done, one line per step: when it starts,
// since some take minutes, and when it is over.
type progress struct {
	out io.Writer
	now func() time.Time
}

func (p progress) step(what string) (done func(error)) {
	start := p.now()
	fmt.Fprintf(p.out, "  … %s\n", what)
	return func(err error) {
		mark := "✓"
		if err != nil {
			mark = "✗"
		}
		fmt.Fprintf(p.out, "  %s %s (%.1fs)\n", mark, what, p.now().Sub(start).Seconds())
	}
}
