package session

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentpane/sandboxctl/schema"
)

var now = time.Unix(1_800_000_000, 0)

func pane(command string) schema.Pane {
	return schema.Pane{Argv: []string{"run", command}, StartDirectory: "/w", Restart: schema.Never}
}

func window(name string, panes ...string) schema.Window {
	w := schema.Window{Name: name, Layout: "tiled"}
	for _, p := range panes {
		w.Panes = append(w.Panes, pane(p))
	}
	return w
}

func declared(windows ...schema.Window) Desired {
	return Desired{Sessions: []schema.Session{{Name: "agent", StartDirectory: "/w", Windows: windows}}}
}

// reported is what tmux would report of what is wanted.
func reported(d Desired) State {
	state := State{Version: "3.3a", Token: "aa"}
	id := 0
	for i := range d.Sessions {
		s := &d.Sessions[i]
		session := Session{ID: "$1", Name: s.Name, Mark: sessionHash(s), Variables: names(s.Environment)}
		for j := range s.Windows {
			w := &s.Windows[j]
			there := Window{ID: fmt.Sprintf("@%d", j), Index: j, Name: w.Name, Mark: windowKey(w.Name), Layout: w.Layout}
			for k := range w.Panes {
				there.Panes = append(there.Panes, Pane{
					ID: fmt.Sprintf("%%%d", id), Index: k, Mark: d.paneHash(s, &w.Panes[k]), Declared: commandText(&w.Panes[k]),
					Command: "run", Started: now.Add(-3 * time.Minute),
				})
				id++
			}
			session.Windows = append(session.Windows, there)
		}
		state.Sessions = append(state.Sessions, session)
	}
	return state
}

// TestMake: what is as it should be is left alone, and a change is as small as
// it can be.
func TestMake(t *testing.T) {
	before := declared(window("main", "a", "b"), window("notes", "n"))
	for name, test := range map[string]struct {
		want Desired
		have func(*State)
		// changes are "action kind name (reason; ends)"; commands are those of
		// tmux that the file has, but for options.
		changes, commands []string
	}{
		"nothing": {want: before},
		"a changed command": {
			want:     declared(window("main", "a", "c"), window("notes", "n")),
			changes:  []string{"update pane agent:main.1 (it is started anew: run b → run c; run b, running for 3m)"},
			commands: []string{"respawn-pane -k -t %1"},
		},
		"a pane more, in the middle": {
			want:     declared(window("main", "a", "c", "b"), window("notes", "n")),
			changes:  []string{"create pane agent:main.1 (run c; )"},
			commands: []string{"select-layout -t @0 tiled", "split-window -t %0", "select-layout -t @0 tiled", "select-layout -t @0 tiled"},
		},
		"a pane more, in front": {
			want:     declared(window("main", "c", "a", "b"), window("notes", "n")),
			changes:  []string{"create pane agent:main.0 (run c; )"},
			commands: []string{"select-layout -t @0 tiled", "split-window -t %0 -b", "select-layout -t @0 tiled", "select-layout -t @0 tiled"},
		},
		"a pane less": {
			want:     declared(window("main", "b"), window("notes", "n")),
			changes:  []string{"delete pane agent:main.0 (it is no longer in the file: run a; run a, running for 3m)"},
			commands: []string{"kill-pane -t %0", "select-layout -t @0 tiled"},
		},
		"panes in another order": {
			want:     declared(window("main", "b", "a"), window("notes", "n")),
			changes:  []string{"update window agent:main (the order of its panes changes; )"},
			commands: []string{"swap-pane -d -s %1 -t %0"},
		},
		"a window more, a window less": {
			want: declared(window("new", "x"), window("main", "a", "b")),
			changes: []string{
				"create window agent:new (; )",
				"delete window agent:notes (it is no longer in the file; run n, running for 3m)",
			},
			commands: []string{
				"new-window -d -a -t =agent:{end} -n #{@sandboxctl-name}", "select-layout -t =agent:{end} tiled",
				"select-pane -t =agent:{end}.0", "move-window -d -s =agent:{end} -b -t @0", "kill-window -t @1",
			},
		},
		"windows in another order": {
			want:     declared(window("notes", "n"), window("main", "a", "b")),
			changes:  []string{"update session agent (the order of its windows changes; )"},
			commands: []string{"swap-window -d -s @1 -t @0"},
		},
		"a session less": {
			changes:  []string{"delete session agent (it is no longer in the file; run a, running for 3m; run b, running for 3m; run n, running for 3m)"},
			commands: []string{"kill-session -t $1"},
		},
		"a pane that was closed": {
			want:     before,
			have:     func(s *State) { s.Sessions[0].Windows[0].Panes = s.Sessions[0].Windows[0].Panes[:1] },
			changes:  []string{"create pane agent:main.1 (run b; )"},
			commands: []string{"select-layout -t @0 tiled", "split-window -t %0", "select-layout -t @0 tiled", "select-layout -t @0 tiled"},
		},
		"what people made": {
			want: before,
			have: func(s *State) {
				main := &s.Sessions[0].Windows[0]
				main.Panes = append(main.Panes, Pane{ID: "%9", Index: 2, Command: "vim"})
				s.Sessions[0].Windows = append(s.Sessions[0].Windows, Window{ID: "@9", Name: "mine", Panes: []Pane{{ID: "%8"}}})
				s.Sessions = append(s.Sessions, Session{ID: "$2", Name: "mine", Windows: []Window{{Panes: []Pane{{}}}}})
			},
		},
		"a dead pane that nobody restarts": {
			want: before,
			have: func(s *State) { s.Sessions[0].Windows[0].Panes[0].Dead = true },
		},
	} {
		t.Run(name, func(t *testing.T) {
			have := reported(before)
			if test.have != nil {
				test.have(&have)
			}
			result, err := Make(test.want, have, Options{Now: now, Token: "bb"})
			if err != nil {
				t.Fatal(err)
			}
			var changes []string
			for _, c := range result.Changes {
				changes = append(changes, fmt.Sprintf("%s %s %s (%s; %s)", c.Action, c.Kind, c.Name, c.Reason, strings.Join(c.Ends, "; ")))
			}
			if diff := cmp.Diff(test.changes, changes); diff != "" {
				t.Errorf("changes: -want +got\n%s", diff)
			}
			if diff := cmp.Diff(test.commands, commands(result.File)); diff != "" {
				t.Errorf("commands: -want +got\n%s", diff)
			}
			if result.File != "" && !strings.HasPrefix(result.File, `if-shell -F "#{==:#{@sandboxctl-token},aa}" {`+"\nset-option -s @sandboxctl-token bb\n") {
				t.Errorf("the file is not guarded: %.120s", result.File)
			}
		})
	}
}

var octal = regexp.MustCompile(`\\[0-3][0-7]{2}`)

// unquoted reads a line of a command file as tmux does, as far as quote uses it.
func unquoted(line string) string {
	return octal.ReplaceAllStringFunc(strings.ReplaceAll(line, `"`, ""), func(code string) string {
		c, _ := strconv.ParseUint(code[1:], 8, 8) // the expression sees to it
		return string([]byte{byte(c)})
	})
}

// commands are those of a file that do more than set an option, without what a
// pane is started with.
func commands(file string) []string {
	var all []string
	for line := range strings.Lines(file) {
		command := unquoted(strings.TrimSpace(line))
		command, _, _ = strings.Cut(command, " ; ")
		command, _, _ = strings.Cut(command, " -c #{@sandboxctl-directory}")
		if strings.Contains(command, "-window") || strings.Contains(command, "-pane ") || strings.Contains(command, "-session") || strings.Contains(command, "-layout") {
			if !strings.HasPrefix(command, "set-") {
				all = append(all, command)
			}
		}
	}
	return all
}

// TestBlocked: a session that people made under a declared name is theirs,
// until it is to be adopted.
func TestBlocked(t *testing.T) {
	want := declared(window("main", "a"))
	have := State{Sessions: []Session{{ID: "$4", Name: "agent", Windows: []Window{{ID: "@4", Name: "zsh", Panes: []Pane{{ID: "%4"}}}}}}}
	result, err := Make(want, have, Options{Now: now, Token: "bb"})
	if err != nil || len(result.Changes) > 0 || result.File != "" || len(result.Blocked) != 1 || result.Blocked[0].Session != "agent" {
		t.Errorf("unasked: %+v, %v", result, err)
	}
	result, err = Make(want, have, Options{Now: now, Token: "bb", Adopt: true})
	if err != nil || len(result.Blocked) > 0 || len(result.Changes) != 2 || result.Changes[0].Action != Adopt || result.Changes[1].Kind != WindowKind {
		t.Errorf("asked for: %+v, %v", result, err)
	}
	if strings.Contains(unquoted(result.File), "kill-") {
		t.Errorf("what people made is ended: %s", unquoted(result.File))
	}
}

// TestCreate: all that is done to a new session is left where it was not created,
// as when people have made one of its name meanwhile; and so it is with a window,
// whose place another has then.
func TestCreate(t *testing.T) {
	want := declared(window("main", "a", "c"))
	want.Sessions = append(want.Sessions, schema.Session{Name: "other", StartDirectory: "/w", Windows: []schema.Window{window("w", "b")}})
	result, err := Make(want, State{}, Options{Now: now, Token: "bb"})
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	var inside []string // what was created, and has to have been
	created := ""
	for line := range strings.Lines(result.File) {
		command := unquoted(strings.TrimSpace(line))
		what, _, _ := strings.Cut(command, " ")
		if what == "new-session" || what == "new-window" {
			_, key, _ := strings.Cut(command, " ; set-option -s -- @sandboxctl-created ")
			if keys[key] || key == "" {
				t.Errorf("its key is not its own: %s", command)
			}
			keys[key], created = true, what+" "+key
		}
		switch _, key, _ := strings.Cut(created, " "); {
		case key != "" && command == "if-shell -F #{==:#{@sandboxctl-created},"+key+"} {":
			inside, created = append(inside, created), ""
		case command == "}" && len(inside) > 0:
			inside = inside[:len(inside)-1]
		case what == "new-session":
		case strings.Contains(command, "{end}") && what != "new-window":
			if len(inside) != 2 {
				t.Errorf("it is done to another window: %s", command)
			}
		case strings.Contains(command, " =agent:") || strings.Contains(command, " =other:"):
			if len(inside) != 1 {
				t.Errorf("it is done all the same: %s", command)
			}
		}
		if what == "split-window" && !strings.Contains(command, " ; set-option -p -t =agent:{end} remain-on-exit on ; set-option -p -t =agent:{end} @sandboxctl-pane ") {
			t.Errorf("another pane would be taken for this one: %s", command)
		}
	}
	if len(keys) != 4 {
		t.Errorf("the keys are %v", keys)
	}
}

// TestHash: what is the same has the same hash, whatever has the focus, and
// everything else makes another one.
func TestHash(t *testing.T) {
	if (Desired{}).Hash() != "" {
		t.Error("nothing has a hash")
	}
	hashes := map[string]string{}
	for name, change := range map[string]func(*Desired){
		"as it is":       func(*Desired) {},
		"a command":      func(d *Desired) { d.Sessions[0].Windows[0].Panes[0].Argv[1] = "z" },
		"a directory":    func(d *Desired) { d.Sessions[0].Windows[0].Panes[0].StartDirectory = "/z" },
		"a variable":     func(d *Desired) { d.Sessions[0].Windows[0].Panes[0].Environment = map[string]string{"A": ""} },
		"a policy":       func(d *Desired) { d.Sessions[0].Windows[0].Panes[0].Restart = schema.Always },
		"a layout":       func(d *Desired) { d.Sessions[0].Windows[0].Layout = "main-vertical" },
		"a window":       func(d *Desired) { d.Sessions[0].Windows[0].Name = "z" },
		"a session":      func(d *Desired) { d.Sessions[0].Name = "z" },
		"its directory":  func(d *Desired) { d.Sessions[0].StartDirectory = "/z" },
		"its variables":  func(d *Desired) { d.Sessions[0].Environment = map[string]string{"A": ""} },
		"the sandbox's":  func(d *Desired) { d.Environment = map[string]string{"A": ""} },
		"another window": func(d *Desired) { d.Sessions[0].Windows = append(d.Sessions[0].Windows, window("x", "y")) },
	} {
		d := declared(window("main", "a", "b"))
		change(&d)
		hash := d.Hash()
		if other, twice := hashes[hash]; twice {
			t.Errorf("%s and %s have the same hash", name, other)
		}
		hashes[hash] = name
		d.Sessions[0].Windows[0].Focus, d.Sessions[0].Windows[0].Panes[1].Focus = true, true
		if d.Hash() != hash {
			t.Errorf("%s: the focus changes the hash", name)
		}
	}
}

// TestNUL: what tmux cannot be told is said, and not cut off.
func TestNUL(t *testing.T) {
	want := declared(window("main", "a\x00b"))
	if _, err := Make(want, State{}, Options{Now: now, Token: "bb"}); err == nil {
		t.Error("a NUL character was taken")
	}
}

// FuzzQuote: whatever a word is, tmux's parser gets to see letters, digits, "-"
// and octal escapes in double quotes, which stand for that word.
func FuzzQuote(f *testing.F) {
	for _, word := range []string{"", "a b", `"; kill-server; "`, "'$HOME' ~ #{pid} #(id) \\ \n  # x", "\xff\x1b[2J", "é{}%"} {
		f.Add(word)
	}
	safe := regexp.MustCompile(`^"([a-zA-Z0-9-]|\\[0-3][0-7]{2})*"$`)
	f.Fuzz(func(t *testing.T, word string) {
		var out strings.Builder
		quote(&out, word)
		if !safe.MatchString(out.String()) || unquoted(out.String()) != word {
			t.Errorf("%q became %s", word, out.String())
		}
	})
}

// TestArgv: no pane's program is a single word, which tmux would make a command
// line of.
func TestArgv(t *testing.T) {
	for name, p := range map[string]schema.Pane{
		"a shell": {}, "a line": {Shell: "a; b"}, "a program": {Argv: []string{"a"}},
		"restarted": {Argv: []string{"a"}, Restart: schema.Always}, "a shell, restarted": {Restart: schema.OnFailure},
	} {
		if got := argv(&p); len(got) < 4 || got[0] != "/bin/sh" || strings.Contains(got[2], "a; b") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestNote(t *testing.T) {
	note := Note{Hash: "ab", Container: Container{ID: "containerd://1", Restarts: 2}}
	if got, want := note.Text(), `{"hash":"ab","container":{"id":"containerd://1","restarts":2}}`; got != want {
		t.Errorf("%+v is noted as %s", note, got)
	}
	if (Note{Container: note.Container}).Text() != "" {
		t.Error("nothing is noted as something")
	}
}
