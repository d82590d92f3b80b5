package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/agentpane/sandboxctl/reconcile/failure"
)

// printError prints err, or each of the errors that were joined in it: a
// failure as its code, its message and, indented, what to do about it.
func printError(out io.Writer, err error) {
	for _, err := range splitErrors(err) {
		text, hint := errorText(err)
		fmt.Fprintln(out, "Error:", printable(text))
		if hint != "" {
			fmt.Fprintln(out, " ", printable(hint))
		}
	}
}

// splitErrors returns the errors of an errors.Join, however deep, or the one error.
func splitErrors(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || err.Error() != errors.Join(joined.Unwrap()...).Error() { // fmt.Errorf with several %w says more
		return []error{err}
	}
	var all []error
	for _, err := range joined.Unwrap() {
		all = append(all, splitErrors(err)...)
	}
	return all
}

func errorText(err error) (text, hint string) {
	text = err.Error()
	failed, ok := errors.AsType[*failure.Error](err)
	if !ok {
		if errors.Is(err, context.Canceled) {
			text = "interrupted"
		}
		return text, ""
	}
	// "creating pod x: CODE: message" reads better as "CODE: creating pod x: message".
	if doing, ok := strings.CutSuffix(text, failed.Error()); ok {
		text = string(failed.Code) + ": " + doing + failed.Message
	}
	if failed.Hint == "" {
		return text, "sandboxctl explain " + string(failed.Code) + " tells more."
	}
	return text, failed.Hint
}

// printable returns text without what could move a terminal's cursor or change
// its colours: a server, a webhook or a file may be a stranger's.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || r == '\n' || r == '\t' {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}
