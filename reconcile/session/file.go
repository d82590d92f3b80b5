package session

import (
	"errors"
	"fmt"
	"strings"
)

// file is a command file for tmux's source-file. A command that fails ends its
// line; the lines after it are run all the same.
type file struct {
	text strings.Builder
	err  error
}

// line adds commands that stand on one line: where one fails, those after it
// are not run.
func (f *file) line(commands ...[]string) {
	for i, command := range commands {
		if i > 0 {
			f.text.WriteString(" ; ")
		}
		for j, word := range command {
			if strings.ContainsRune(word, 0) {
				f.err = errors.New("a NUL character cannot be passed to tmux")
			}
			if j > 0 {
				f.text.WriteByte(' ')
			}
			quote(&f.text, word)
		}
	}
	f.text.WriteByte('\n')
}

// quote writes a word so that tmux's parser takes it for that word, whatever it
// holds: in double quotes, and every byte but letters, digits and "-" as \ooo.
// Nothing is left for the parser to expand ($, ~, #), to join (a newline and
// the spaces after it) or to end the word at (quotes, ;, braces).
func quote(out *strings.Builder, word string) {
	out.WriteByte('"')
	for i := range len(word) {
		switch c := word[i]; {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-':
			out.WriteByte(c)
		default:
			fmt.Fprintf(out, `\%03o`, c)
		}
	}
	out.WriteByte('"')
}

// Some arguments are formats: tmux expands #{…} in them. What is the user's
// gets there through a server option: the value of an option is not expanded
// again.
const (
	nameOption      = "@sandboxctl-name"
	directoryOption = "@sandboxctl-directory"
	nameFormat      = "#{" + nameOption + "}"
	directoryFormat = "#{" + directoryOption + "}"
)

func (f *file) setServer(option, value string) {
	f.line([]string{"set-option", "-s", "--", option, value})
}

// createdOption, of the server, is the key of the session or window that was
// created last.
const createdOption = "@sandboxctl-created"

// created adds the commands that create a session or window, and what is to be
// done to it: nothing, where they fail, as because a session of that name is there
// by now. The key is nobody else's.
func (f *file) created(commands [][]string, key string, add func()) {
	f.line(append(commands, []string{"set-option", "-s", "--", createdOption, key})...)
	f.text.WriteString(ifIs(createdOption, key) + " {\n")
	add()
	f.text.WriteString("}\n")
}

// ifIs begins a command that tmux runs only while the option has that value.
func ifIs(option, value string) string {
	return `if-shell -F "#{==:#{` + option + `},` + value + `}"`
}

// StaleText is what tmux prints where the state is no longer the one that a
// command file was made for.
const StaleText = "sandboxctl: stale"

// guarded wraps the command file: tmux runs it only while the token is the one
// that was read, and sets the new one first. tmux runs one command file at a
// time, so of two that were made from the same state one does nothing.
func (f *file) guarded(read, next string) string {
	return ifIs(tokenOption, read) + " {\n" +
		"set-option -s " + tokenOption + " " + next + "\n" + f.text.String() +
		"} {\n" + `display-message -p "` + StaleText + `"` + "\n}\n"
}
