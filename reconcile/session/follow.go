package session

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
)

// Follower follows a pane through tmux's control mode: it is the output and the
// input of the command of FollowCommand. What it finds in the lines that tmux
// sends, it writes: first the pane's content, then what the pane prints.
type Follower struct {
	target Target
	lines  int
	out    io.Writer
	input  feed

	line   []byte // one that has not come whole
	pane   string // the id, as soon as it is known
	shown  bool   // the content was written
	block  int    // how many answers have begun
	inside string // by which the end of the present one is known; empty outside
	answer strings.Builder
	said   string
	over   bool // there is nothing to follow any more
	err    error
}

// NewFollower returns a follower that begins with that many lines. It must be
// closed when the command has ended.
func NewFollower(target Target, lines int, out io.Writer) *Follower {
	return &Follower{target: target, lines: lines, out: out, input: feed{commands: make(chan string, 1)}}
}

// Input is what tmux is to read. It ends when the follower is closed.
func (f *Follower) Input() io.Reader { return &f.input }

// Close ends the input; what tmux sends after that is not looked at.
func (f *Follower) Close() {
	f.over = true
	f.input.close()
}

// Err is why the output could not be written; nil while it can.
func (f *Follower) Err() error { return f.err }

// Said is what tmux said against its task, up to some 4 KiB.
func (f *Follower) Said() string { return f.said }

// lineLimit bounds one line of control mode; tmux's own are at most 64 KiB.
const lineLimit = 1 << 20

// answerLimit bounds the content of a pane, saidLimit what Said returns.
const (
	answerLimit = 64 << 20
	saidLimit   = 4 << 10
)

// Write takes what tmux sends.
func (f *Follower) Write(content []byte) (int, error) {
	total := len(content)
	for len(content) > 0 {
		end := bytes.IndexByte(content, '\n')
		if end < 0 {
			f.line = append(f.line, content...)
			if len(f.line) > lineLimit {
				f.err = errors.New("tmux sends a line that has no end")
			}
			break
		}
		line := append(f.line, content[:end]...)
		content = content[end+1:]
		f.take(strings.TrimSuffix(string(line), "\r"))
		f.line = f.line[:0]
	}
	return total, f.err
}

// The answers come in the order of the questions; the first is that to the
// attaching itself.
const (
	paneAnswer = iota + 2
	contentAnswer
)

func (f *Follower) take(line string) {
	kind, rest, _ := strings.Cut(line, " ")
	switch {
	case f.over:
	case f.answer.Len() > answerLimit:
		f.err = errors.New("tmux sends an answer that has no end")
	case f.inside != "" && rest == f.inside && (kind == "%end" || kind == "%error"):
		f.inside = ""
		f.answered(kind == "%error")
	case f.inside != "":
		f.answer.WriteString(line + "\n")
	case kind == "%begin":
		f.block, f.inside = f.block+1, rest
		f.answer.Reset()
	case kind == "%session-changed" && f.pane == "":
		f.ask()
	case kind == "%output":
		id, data, _ := strings.Cut(rest, " ")
		if f.shown && id == f.pane {
			f.print(unescape(data))
		}
	}
}

// ask asks for the pane's id and content, once.
func (f *Follower) ask() {
	var commands file
	commands.line([]string{"display-message", "-p", "-t", f.target.exact(), "#{pane_id}"})
	commands.line(f.target.CaptureCommand(f.lines))
	f.input.send(commands.text.String())
}

func (f *Follower) answered(isError bool) {
	answer := f.answer.String()
	switch {
	case isError:
		f.said = answer[:min(len(answer), saidLimit)]
		f.Close()
	case f.block == paneAnswer:
		f.pane = strings.TrimSpace(answer)
	case f.block == contentAnswer:
		f.print(LastLines(answer, f.lines))
		f.shown = true
	}
	f.answer.Reset()
}

func (f *Follower) print(text string) {
	if _, err := io.WriteString(f.out, text); err != nil && f.err == nil {
		f.err = fmt.Errorf("writing what the pane prints: %w", err)
	}
}

// unescape undoes control mode's escapes: \ooo for control characters and the
// backslash.
func unescape(data string) string {
	var text strings.Builder
	for i := 0; i < len(data); i++ {
		if data[i] == '\\' && i+3 < len(data) && isOctal(data[i+1:i+4]) {
			text.WriteByte((data[i+1]-'0')<<6 | (data[i+2]-'0')<<3 | (data[i+3] - '0'))
			i += 3
			continue
		}
		text.WriteByte(data[i])
	}
	return text.String()
}

func isOctal(digits string) bool {
	return strings.Trim(digits, "01234567") == "" && digits[0] <= '3'
}

// feed is a reader of what is sent to it.
type feed struct {
	commands chan string
	rest     string
	once     sync.Once
}

func (f *feed) send(command string) {
	select {
	case f.commands <- command:
	default: // it was asked already
	}
}

func (f *feed) close() { f.once.Do(func() { close(f.commands) }) }

func (f *feed) Read(content []byte) (int, error) {
	if f.rest == "" {
		next, open := <-f.commands
		if !open {
			return 0, io.EOF
		}
		f.rest = next
	}
	n := copy(content, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}
