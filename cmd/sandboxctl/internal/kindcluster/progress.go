package kindcluster

import (
	"fmt"
	"io"
	"strings"
	"sync"

	"sigs.k8s.io/kind/pkg/log"
)

// progress is kind's log.Logger and the progress of this package's own steps:
// whole lines, written to out. kind logs from several goroutines.
type progress struct {
	mu  sync.Mutex
	out io.Writer
}

// V keeps kind's debugging messages out.
func (p *progress) V(level log.Level) log.InfoLogger {
	if level > 0 {
		return log.NoopInfoLogger{}
	}
	return p
}

func (p *progress) Enabled() bool { return true }

func (p *progress) Info(message string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// Progress that cannot be written is no reason to stop.
	_, _ = io.WriteString(p.out, strings.TrimSuffix(message, "\n")+"\n")
}

func (p *progress) Infof(format string, args ...any)  { p.Info(fmt.Sprintf(format, args...)) }
func (p *progress) Warn(message string)               { p.Info(message) }
func (p *progress) Warnf(format string, args ...any)  { p.Infof(format, args...) }
func (p *progress) Error(message string)              { p.Info(message) }
func (p *progress) Errorf(format string, args ...any) { p.Infof(format, args...) }

// step runs do as one of kind's steps looks.
func (p *progress) step(what string, do func() error) error {
	p.Infof(" • %s  ...", what)
	err := do()
	if err != nil {
		p.Infof(" ✗ %s", what)
		return err
	}
	p.Infof(" ✓ %s", what)
	return nil
}
