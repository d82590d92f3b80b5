package main

import (
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

// brokenFiles is the error of fleet files that cannot be used. It has been
// printed for people when it is returned.
type brokenFiles struct{ found diagnostic.List }

func (b brokenFiles) errors() []diagnostic.Diagnostic {
	var errs []diagnostic.Diagnostic
	for _, finding := range b.found {
		if finding.Severity == diagnostic.Error {
			errs = append(errs, finding)
		}
	}
	return errs
}

func (b brokenFiles) Error() string {
	return count(len(b.errors()), "error") + " in the fleet files"
}

// brokenInfo is the JSON of every command that reads files, where these are
// broken.
type brokenInfo struct {
	FormatVersion string      `json:"formatVersion"`
	Errors        []fileError `json:"errors"`
}

// fileError is one error. Where it stands is null for a file that cannot be read.
type fileError struct {
	File    *string `json:"file"`
	Line    *int    `json:"line"`
	Column  *int    `json:"column"`
	Path    string  `json:"path"`
	Message string  `json:"message"`
	Hint    string  `json:"hint"`
}

// printBroken prints what is wrong with the files for programs, if that is what
// err is: in the format that the command was asked for.
func printBroken(out io.Writer, cmd *cobra.Command, err error) error {
	broken, ok := errors.AsType[brokenFiles](err)
	flag := cmd.Flag("output")
	if !ok || flag == nil {
		return nil
	}
	switch outputFormat(flag.Value.String()) {
	case outputJSON:
		info := brokenInfo{FormatVersion: formatVersion}
		for _, finding := range broken.errors() {
			e := fileError{Path: finding.Path, Message: finding.Summary, Hint: finding.Detail}
			if at := finding.Subject; at.File != nil {
				e.File, e.Line, e.Column = &at.File.Name, &at.Start.Line, &at.Start.Column
			}
			info.Errors = append(info.Errors, e)
		}
		return printJSON(out, info)
	case outputGitHub:
		for _, finding := range broken.found {
			message := strings.TrimSpace(finding.Summary + "\n" + finding.Detail)
			printAnnotation(out, strings.ToLower(finding.Severity.String()), finding.Subject, message)
		}
	}
	return nil
}
