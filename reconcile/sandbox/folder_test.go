//go:build unix

package sandbox

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// TestFolderNotice runs wrapScript: that a folder is missing is known, and is
// mixed up with nothing that a program does.
func TestFolderNotice(t *testing.T) {
	dir := t.TempDir()
	for name, test := range map[string]struct {
		dir, script string
		tty         bool
		missing     bool
		code        int
		out         string
	}{
		"it is there":          {dir, "pwd >&2", false, false, 0, dir + "\n"},
		"it is not":            {dir + "/nope", "echo it runs >&2", false, true, 126, ""},
		"nor on a terminal":    {dir + "/nope", "echo it runs", true, true, 126, ""},
		"a code of its own":    {dir, "echo mine >&2; exit 126", false, false, 126, "mine\n"},
		"a code and nothing":   {dir, "exit 126", false, false, 126, ""},
		"what begins like it":  {dir, `printf '\001' >&2; exit 126`, false, false, 126, "\x01"},
		"and then goes on":     {dir, `printf '\001A' >&2; echo B >&2`, false, false, 0, "\x01AB\n"},
		"a folder like a flag": {"-nope", "true", false, true, 126, ""},
	} {
		var out strings.Builder
		command := Command{Args: []string{"sh", "-c", test.script}, Dir: test.dir, TTY: test.tty}
		if test.tty {
			command.Stdout = &out
		} else {
			command.Stderr = &out
		}
		notice := command.noticeFolder()
		args := command.wrapped(notice.word).Args
		local := exec.CommandContext(t.Context(), args[0], args[1:]...)
		local.Stdout, local.Stderr, local.Dir = command.Stdout, command.Stderr, dir
		if test.tty {
			local.Stderr = local.Stdout
		}
		err := local.Run()
		if failed := (*exec.ExitError)(nil); err != nil && !errors.As(err, &failed) {
			t.Fatalf("%s: %v", name, err)
		}
		missing, err := notice.end()
		if missing != test.missing || err != nil || local.ProcessState.ExitCode() != test.code || out.String() != test.out {
			t.Errorf("%s: missing %t, %v, code %d, printed %q; want %t, %d, %q", name,
				missing, err, local.ProcessState.ExitCode(), out.String(), test.missing, test.code, test.out)
		}
	}
}

// TestFolderNoticeUnheard: where nobody wants the output, the notice is seen all the same.
func TestFolderNoticeUnheard(t *testing.T) {
	command := Command{}
	notice := command.noticeFolder()
	for _, half := range []string{notice.word[:5], notice.word[5:]} {
		if _, err := command.Stderr.Write([]byte(half)); err != nil {
			t.Error(err)
		}
	}
	if missing, err := notice.end(); !missing || err != nil {
		t.Errorf("missing %t, %v", missing, err)
	}
}
