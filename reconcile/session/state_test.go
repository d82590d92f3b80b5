package session

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

const report = `tmux 3.3a
v|0a|f00 A,B
s|$0|1800000000|1800000060|2|abc|A,B|agent
s|$1|1800000000|1800000000|0|||
w|$0|@0|0|1|aa|tiled|ma|in
p|$0|@0|%1|1|0|1|3||1800000010|bb|1800000000|4|bnBtIHRlc3Q|sh
p|$0|@0|%0|0|1|0||||||||weird|name
`

func TestParse(t *testing.T) {
	state, err := Parse(report)
	if err != nil {
		t.Fatal(err)
	}
	s := state.Session("agent")
	if state.Version != "3.3a" || state.Token != "0a" || len(state.Sessions) != 2 || s == nil || s.Attached != 2 || len(s.Variables) != 2 ||
		!s.Activity.Equal(time.Unix(1800000060, 0)) {
		t.Fatalf("got %+v", state)
	}
	panes := s.Windows[0].Panes
	if s.Windows[0].Name != "ma|in" || panes[0].Command != "weird|name" || panes[0].Title() != "weird|name" {
		t.Errorf("got %+v", s.Windows)
	}
	if dead := panes[1]; !dead.Dead || dead.Ended() != "ended with exit status 3" || dead.Title() != "npm test" || dead.Restarts != 4 {
		t.Errorf("the dead pane is %+v", panes[1])
	}
	for name, text := range map[string]string{
		"an old tmux": "tmux 3.1c\n", "another line": "x|1\n", "a field less": "s|$0|1\n", "no number": "s|$0|x|||||n\n",
		"a mark that is none": "v|$(id)|\n", "what a program says": "\x1b[2J\n",
		"a session without an id": "s|||||||\n", "a session twice": "s|$0||||||a\ns|$0||||||b\n",
		"a window without an id": "s|$0||||||a\nw|$0||||||\n", "a pane without an id": "p|$0|@0||||||||||||\n",
	} {
		if _, err := Parse(text); err == nil || strings.ContainsRune(err.Error(), '\x1b') {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, version := range []string{"tmux 3.2", "tmux next-3.6", "tmux 10.0", "tmux openbsd-7.8", ""} {
		if _, err := Parse(version + "\n" + "v||\n"); version != "" && err != nil {
			t.Errorf("%s: %v", version, err)
		}
	}
}

// TestParseLinked: a window that people have linked to a second place of its
// session is there once, and one in two sessions is there in each.
func TestParseLinked(t *testing.T) {
	state, err := Parse("tmux 3.3a\nv||\ns|$0||||||a\ns|$1||||||b\n" +
		"w|$0|@0|0|1|||w\nw|$0|@0|5|0|||w\nw|$1|@0|0|1|||w\nw|$9|@9|0|1|||w\n" +
		strings.Repeat("p|$0|@0|%0|0|1|0||||||||sh\n", 2) + "p|$1|@0|%0|0|1|0||||||||sh\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range state.Sessions {
		if len(s.Windows) != 1 || s.Windows[0].Index != 0 || len(s.Windows[0].Panes) != 1 {
			t.Errorf("got %+v", s)
		}
	}
}

// FuzzParse: whatever a sandbox says, it is read or refused.
func FuzzParse(f *testing.F) {
	f.Add(report)
	f.Add(strings.Repeat("s|||||||\n", 9) + strings.Repeat("w|||||||\n", 9) + strings.Repeat("p||||||||||||||\n", 9))
	f.Fuzz(func(t *testing.T, text string) {
		state, err := Parse(text)
		if err != nil {
			return
		}
		things := len(state.Sessions)
		for _, s := range state.Sessions {
			things += len(s.Windows)
			for _, w := range s.Windows {
				things += len(w.Panes)
			}
		}
		if lines := strings.Count(text, "\n") + 1; things > lines {
			t.Errorf("%d lines became %d things", lines, things)
		}
		if _, err := Make(declared(window("main", "a")), state, Options{Now: now, Token: "bb"}); err != nil {
			t.Error(err)
		}
	})
}

func TestParseTarget(t *testing.T) {
	for text, want := range map[string]string{
		"agent": "=agent:", "agent:main": "=agent:=main", "agent:2": "=agent:2", "agent:my win;.1": "=agent:=my win;.1",
		"agent:w;": `=agent:=w\;`, "-x": "=-x:", "%5": "=%5:",
	} {
		target, err := ParseTarget(text)
		if err != nil || target.exact() != want || target.String() != text {
			t.Errorf("%s: %q, %v", text, target.exact(), err)
		}
	}
	for _, text := range []string{"", ":main", "agent:", "agent:main.x", "a.b", "a:b:c", "a:b.-1"} {
		if target, err := ParseTarget(text); err == nil {
			t.Errorf("%q is %+v", text, target)
		}
	}
}

func TestLastLines(t *testing.T) {
	for _, test := range [][2]string{{"a\nb\nc\n\n  \n", "b\nc\n"}, {"", ""}, {"\n\n", ""}, {"a", "a\n"}, {" a\nb", " a\nb\n"}} {
		if got := LastLines(test[0], 2); got != test[1] {
			t.Errorf("of %q: %q", test[0], got)
		}
	}
}

// TestFollower: however the stream comes in pieces, the content is written
// first, then what the pane prints, and nothing of other panes.
func TestFollower(t *testing.T) {
	const stream = "%begin 1 1 0\n%end 1 1 0\n%window-add @0\n%session-changed $0 agent\n%output %3 too early\n" +
		"%begin 2 2 1\n%3\n%end 2 2 1\n%begin 3 3 1\nold\n%5% of it\n\n\n%end 3 3 1\n" +
		"%output %9 another's\n%output %3 a\\015\\012b\\134c\\0\n%exit\n"
	for size := 1; size < len(stream); size += 3 {
		var out bytes.Buffer
		f := NewFollower(Target{Session: "agent"}, 10, &out)
		for rest := []byte(stream); len(rest) > 0; rest = rest[min(size, len(rest)):] {
			if _, err := f.Write(rest[:min(size, len(rest))]); err != nil {
				t.Fatal(err)
			}
		}
		if want := "old\n%5% of it\na\r\nb\\c\\0"; out.String() != want {
			t.Fatalf("in pieces of %d: %q, not %q", size, out.String(), want)
		}
		f.Close()
		asked, err := io.ReadAll(f.Input())
		if err != nil || !strings.Contains(unquoted(string(asked)), "capture-pane -p -J -t =agent: -S -10") {
			t.Fatalf("it asks %q, %v", asked, err)
		}
	}
	f := NewFollower(Target{Session: "none"}, 10, io.Discard)
	if _, err := f.Write([]byte("%begin 1 1 0\ncan't find session: none\n%error 1 1 0\n%exit\n")); err != nil || f.Said() != "can't find session: none\n" {
		t.Errorf("it says %q, %v", f.Said(), err)
	}
	if _, err := io.ReadAll(f.Input()); err != nil {
		t.Error(err)
	}
	f = NewFollower(Target{}, 1, broken{})
	if _, err := f.Write([]byte(stream)); err == nil {
		t.Error("output that cannot be written is no error")
	}
	if _, err := f.Write(bytes.Repeat([]byte("x"), lineLimit+1)); err == nil {
		t.Error("a line without an end is no error")
	}
}

// FuzzFollower: whatever a sandbox sends, it is followed or given up.
func FuzzFollower(f *testing.F) {
	f.Add("%begin 1 1 0\n%end 1 1 0\n%session-changed $0 agent\n%begin 2 2 1\n%3\n%end 2 2 1\n%output %3 a\\015\n")
	f.Add("%begin x\n%error x\n%session-changed y\n")
	f.Add(strings.Repeat("%begin x\n"+strings.Repeat("said ", saidLimit)+"\n%error x\n", 3))
	f.Fuzz(func(t *testing.T, stream string) {
		follower := NewFollower(Target{Session: "agent"}, 10, io.Discard)
		if _, err := follower.Write([]byte(stream)); err != nil && len(stream) <= lineLimit {
			t.Error(err)
		}
		if len(follower.Said()) > saidLimit {
			t.Errorf("it says %d bytes", len(follower.Said()))
		}
		follower.Close()
		if _, err := io.ReadAll(follower.Input()); err != nil {
			t.Error(err)
		}
	})
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("broken") }
