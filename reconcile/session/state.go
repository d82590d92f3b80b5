package session

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The options by which tmux remembers what was declared. No name is used at two
// levels, as a pane inherits its window's options and that its session's.
const (
	tokenOption       = "@sandboxctl-token"       // of the server: changes with each command file
	environmentOption = "@sandboxctl-environment" // of the server: hash and names of the global environment
	sessionOption     = "@sandboxctl-session"     // sessionHash
	variablesOption   = "@sandboxctl-variables"   // of a session: the names in its environment
	windowOption      = "@sandboxctl-window"      // windowKey
	layoutOption      = "@sandboxctl-layout"      // of a window, as declared
	paneOption        = "@sandboxctl-pane"        // paneHash
	commandOption     = "@sandboxctl-command"     // of a pane: commandText, encoded
	startedOption     = "@sandboxctl-started"     // of a pane: when, in seconds since 1970
	restartsOption    = "@sandboxctl-restarts"    // of a pane: how often restartScript has started its command again
)

// State is what tmux reports. The zero State is that of a sandbox in which no
// tmux runs.
type State struct {
	// Version is tmux's, as "3.3a".
	Version string `json:"version,omitempty"`
	// Token changes with everything that this package changes.
	Token       string `json:"token,omitempty"`
	Environment string `json:"environment,omitempty"`
	// Sessions are in tmux's order.
	Sessions []Session `json:"sessions,omitempty"`
}

// Session is a session that there is.
type Session struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Created  time.Time `json:"created"`
	Activity time.Time `json:"activity"`
	// Attached is how many clients show it.
	Attached int `json:"attached"`
	// Mark is the hash of what was declared; empty for a session that people
	// made.
	Mark      string   `json:"mark,omitempty"`
	Variables []string `json:"variables,omitempty"`
	Windows   []Window `json:"windows"`
}

// Window is a window that there is.
type Window struct {
	ID     string `json:"id"`
	Index  int    `json:"index"`
	Active bool   `json:"active,omitempty"`
	Name   string `json:"name"`
	// Mark is the key of the declared window; empty for one that people made.
	Mark   string `json:"mark,omitempty"`
	Layout string `json:"layout,omitempty"`
	Panes  []Pane `json:"panes"`
}

// Pane is a pane that there is.
type Pane struct {
	ID     string `json:"id"`
	Index  int    `json:"index"`
	Active bool   `json:"active,omitempty"`
	// Dead: its command has ended, with Status or by the signal of that number.
	Dead   bool      `json:"dead,omitempty"`
	Status int       `json:"status,omitempty"`
	Signal string    `json:"signal,omitempty"`
	DeadAt time.Time `json:"deadAt,omitzero"`
	// Mark is the hash of what was declared; empty for one that people made.
	Mark string `json:"mark,omitempty"`
	// Declared is the command that was declared, Command what runs in the
	// foreground.
	Declared string    `json:"declared,omitempty"`
	Command  string    `json:"command"`
	Started  time.Time `json:"started,omitzero"`
	// Restarts is how often the command was started again.
	Restarts int `json:"restarts,omitempty"`
}

// Ended says how a dead pane's command ended.
func (p Pane) Ended() string {
	if p.Signal != "" && p.Signal != "0" {
		return "ended by signal " + p.Signal
	}
	return "ended with exit status " + strconv.Itoa(p.Status)
}

// Title is what people know the pane by: the command that was declared, or
// what runs in the shell that was.
func (p Pane) Title() string {
	if p.Declared == "" || p.Declared == aShell && !p.Dead {
		return p.Command
	}
	return p.Declared
}

// Session returns the session of that name, or nil.
func (s State) Session(name string) *Session {
	for i := range s.Sessions {
		if s.Sessions[i].Name == name {
			return &s.Sessions[i]
		}
	}
	return nil
}

// readScript is what reads the state, in one go; the formats come as
// parameters. Without a server there are no sessions.
const readScript = `tmux -V || exit 127; exec tmux -u "$@"`

// lostEnd is the tmux format that is not empty where a pane has ended and tmux does
// not know how. Before 3.5 it can miss a child's end, and never looks again until
// another child ends: https://github.com/tmux/tmux/issues/2679.
const lostEnd = "#{S:#{W:#{P:#{?#{&&:#{pane_dead},#{==:#{pane_dead_status}#{pane_dead_signal},}},1,}}}}"

// fieldSeparator separates what tmux prints. The last field of a line can hold
// it; the others are numbers, ids and what this package has written itself.
const fieldSeparator = "|"

func format(kind string, fields ...string) string {
	line := kind
	for _, field := range fields {
		line += fieldSeparator + "#{" + field + "}"
	}
	return line
}

// ReadCommand is the command that prints what Parse reads.
func ReadCommand() []string {
	return []string{
		"/bin/sh", "-c", readScript, "sandboxctl",
		"display-message", "-p", format("v", tokenOption, environmentOption), ";",
		"if-shell", "-F", lostEnd, "run-shell true", ";", // another child that ends
		"list-sessions", "-F", format("s", "session_id", "session_created", "session_activity", "session_attached",
			sessionOption, variablesOption, "session_name"), ";",
		"list-windows", "-a", "-F", format("w", "session_id", "window_id", "window_index", "window_active",
			windowOption, layoutOption, "window_name"), ";",
		"list-panes", "-a", "-F", format("p", "session_id", "window_id", "pane_id", "pane_index", "pane_active",
			"pane_dead", "pane_dead_status", "pane_dead_signal", "pane_dead_time",
			paneOption, startedOption, restartsOption, commandOption,
			"s/[^ -~]/?/:pane_current_command"), // a program may have a name with a line break
	}
}

// The least version of tmux: new-session -e and pane options came with it.
var leastVersion = [2]int{3, 2}

var (
	versionPattern = regexp.MustCompile(`^tmux (?:next-)?((\d+)\.(\d+)\S*)$`)
	hexadecimal    = regexp.MustCompile(`^[0-9a-f]*$`)
)

// Parse reads what ReadCommand has printed.
func Parse(output string) (State, error) {
	var state State
	p := parser{state: &state, sessions: map[string]int{}, windows: map[[2]string]int{}, panes: map[[3]string]bool{}}
	for line := range strings.Lines(output) {
		line = strings.TrimSuffix(line, "\n")
		if version, ok := strings.CutPrefix(line, "tmux "); ok && state.Version == "" {
			state.Version = version
			if match := versionPattern.FindStringSubmatch(line); match != nil { // OpenBSD's own has another number
				major, minor := p.number(match[2]), p.number(match[3])
				if cmp.Or(cmp.Compare(major, leastVersion[0]), cmp.Compare(minor, leastVersion[1])) < 0 {
					return state, fmt.Errorf("its tmux is %s, and sessions need %d.%d", match[1], leastVersion[0], leastVersion[1])
				}
			}
			continue
		}
		kind, rest, _ := strings.Cut(line, fieldSeparator)
		read := map[string]func([]string){"v": p.server, "s": p.session, "w": p.window, "p": p.pane}[kind]
		count := map[string]int{"v": 2, "s": 7, "w": 7, "p": 14}[kind]
		fields := strings.SplitN(rest, fieldSeparator, count)
		if read == nil || len(fields) != count {
			return state, fmt.Errorf("tmux says what cannot be read: %q", short(line))
		}
		if read(fields); p.err != nil {
			return state, fmt.Errorf("tmux says what cannot be read: %q: %w", short(line), p.err)
		}
	}
	for i := range state.Sessions {
		for j := range state.Sessions[i].Windows {
			slices.SortStableFunc(state.Sessions[i].Windows[j].Panes, func(a, b Pane) int { return a.Index - b.Index })
		}
	}
	return state, nil
}

// parser builds the state. It finds what a line belongs to by tmux's ids, so that
// no line makes more than one thing, whatever a sandbox says.
type parser struct {
	state    *State
	sessions map[string]int     // by id: where it stands in the state
	windows  map[[2]string]int  // by the ids of session and window: where it stands in the session
	panes    map[[3]string]bool // by the ids of session, window and pane
	err      error
}

func (p *parser) id(text string) string {
	if text == "" && p.err == nil {
		p.err = errors.New("an id is missing")
	}
	return text
}

func (p *parser) number(text string) int {
	if text == "" {
		return 0
	}
	n, err := strconv.Atoi(text)
	if err != nil && p.err == nil {
		p.err = err
	}
	return n
}

func (p *parser) time(text string) time.Time {
	if seconds := p.number(text); seconds > 0 {
		return time.Unix(int64(seconds), 0).UTC()
	}
	return time.Time{}
}

func (p *parser) hash(text string) string {
	if !hexadecimal.MatchString(text) && p.err == nil {
		p.err = fmt.Errorf("%q is no hash", text)
	}
	return text
}

func (p *parser) server(f []string) {
	p.state.Token, p.state.Environment = p.hash(f[0]), f[1]
}

func (p *parser) session(f []string) {
	s := Session{
		ID: p.id(f[0]), Created: p.time(f[1]), Activity: p.time(f[2]), Attached: p.number(f[3]), Mark: p.hash(f[4]), Name: f[6],
	}
	if _, twice := p.sessions[s.ID]; twice && p.err == nil {
		p.err = fmt.Errorf("session %q is there twice", short(s.ID))
	}
	if f[5] != "" {
		s.Variables = strings.Split(f[5], ",")
	}
	p.sessions[s.ID] = len(p.state.Sessions)
	p.state.Sessions = append(p.state.Sessions, s)
}

// window takes a window of a session once: tmux lists it again for each further
// place that people have linked it to.
func (p *parser) window(f []string) {
	w := Window{
		ID: p.id(f[1]), Index: p.number(f[2]), Active: f[3] == "1", Mark: p.hash(f[4]), Layout: f[5], Name: f[6],
	}
	key := [2]string{f[0], w.ID}
	i, known := p.sessions[f[0]]
	if _, again := p.windows[key]; again || !known {
		return
	}
	windows := &p.state.Sessions[i].Windows
	p.windows[key] = len(*windows)
	*windows = append(*windows, w)
}

// pane takes a pane once, as window does.
func (p *parser) pane(f []string) {
	pane := Pane{
		ID: p.id(f[2]), Index: p.number(f[3]), Active: f[4] == "1",
		Dead:   f[5] == "1" && (f[6] != "" || f[7] != ""), // before that, tmux does not know how it ended
		Status: p.number(f[6]), Signal: f[7], DeadAt: p.time(f[8]),
		Mark: p.hash(f[9]), Started: p.time(f[10]), Restarts: p.number(f[11]), Declared: decodeText(f[12]), Command: short(f[13]),
	}
	key := [3]string{f[0], f[1], pane.ID}
	j, known := p.windows[[2]string{f[0], f[1]}]
	if p.panes[key] || !known {
		return
	}
	p.panes[key] = true
	w := &p.state.Sessions[p.sessions[f[0]]].Windows[j]
	w.Panes = append(w.Panes, pane)
}
