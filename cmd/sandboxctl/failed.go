package main

import (
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

// brokenFiles is the error of fleet files that cannot be used. It has been
// printed for people when it is returned.
type brokenFiles struct{ found diagnostic.List }

func (b brokenFiles) Error() string {
	return count(len(b.found.Errors()), "error") + " in the fleet files"
}

// failedInfo is the JSON of every command that fails before it has a result.
type failedInfo struct {
	FormatVersion string      `json:"formatVersion"`
	Errors        []errorInfo `json:"errors"`
}

// errorInfo is one error, or warning: a failure has a code, and may have an object and
// details; an error of a file has where it stands, which is null for a file that
// cannot be read, and for all that no file is to blame for.
type errorInfo struct {
	Code    failure.Code   `json:"code"`
	Message string         `json:"message"`
	Hint    string         `json:"hint"`
	Object  failure.Object `json:"object,omitzero"`
	Details map[string]any `json:"details,omitempty"`
	File    *string        `json:"file"`
	Line    *int           `json:"line"`
	Column  *int           `json:"column"`
	Path    string         `json:"path"`
}

// printFailed prints the errors in err for programs, in the format that the
// command was asked for.
func printFailed(out io.Writer, cmd *cobra.Command, err error) error {
	flag := cmd.Flag("output")
	if flag == nil {
		return nil
	}
	switch outputFormat(flag.Value.String()) {
	case outputJSON:
		return printJSON(out, failedInfo{FormatVersion: formatVersion, Errors: errorInfos(err)})
	case outputGitHub:
		for _, err := range splitErrors(err) {
			annotateError(out, err)
		}
	}
	return nil
}

// errorInfos are the errors in err, for programs; none where there is none.
func errorInfos(err error) []errorInfo {
	infos := []errorInfo{}
	if err == nil {
		return infos
	}
	for _, err := range splitErrors(err) {
		if broken, ok := errors.AsType[brokenFiles](err); ok {
			infos = append(infos, findingInfos(broken.found.Errors())...)
			continue
		}
		text, hint := errorText(err)
		info := errorInfo{Message: text, Hint: hint}
		if failed, ok := errors.AsType[*failure.Error](err); ok {
			info.Code, info.Object, info.Details = failed.Code, failed.Object, failed.Details
			info.Message = strings.TrimPrefix(text, string(failed.Code)+": ")
		}
		infos = append(infos, info)
	}
	return infos
}

// findingInfos are findings in files, for programs.
func findingInfos(found diagnostic.List) []errorInfo {
	infos := []errorInfo{}
	for _, finding := range found {
		info := errorInfo{Path: finding.Path, Message: finding.Summary, Hint: finding.Detail}
		if at := finding.Subject; at.File != nil {
			info.File, info.Line, info.Column = &at.File.Name, &at.Start.Line, &at.Start.Column
		}
		infos = append(infos, info)
	}
	return infos
}

func annotateError(out io.Writer, err error) {
	broken, ok := errors.AsType[brokenFiles](err)
	if !ok {
		text, hint := errorText(err)
		printAnnotation(out, "error", diagnostic.Range{}, strings.TrimSpace(text+"\n"+hint))
		return
	}
	annotateFindings(out, broken.found)
}

func annotateFindings(out io.Writer, found diagnostic.List) {
	for _, finding := range found {
		message := strings.TrimSpace(finding.Summary + "\n" + finding.Detail)
		printAnnotation(out, strings.ToLower(finding.Severity.String()), finding.Subject, message)
	}
}

// noting notes whether anything was written, and the first error of that.
type noting struct {
	io.Writer
	written bool
	err     error
}

func (n *noting) Write(p []byte) (int, error) {
	n.written = n.written || len(p) > 0
	done, err := n.Writer.Write(p)
	if n.err == nil {
		n.err = err
	}
	return done, err
}
