package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

// explainInfo is the JSON of explain: all codes, or the one that was asked for.
type explainInfo struct {
	FormatVersion string          `json:"formatVersion"`
	Codes         []failure.Entry `json:"codes"`
}

func newExplainCommand(env environment) *cobra.Command {
	var output outputFormat
	cmd := &cobra.Command{
		Use:   "explain [CODE]",
		Short: "Explain an error code, or list them all",
		Long: `Explain an error code: what it means, what may have caused it, and what to do.
Without a code, list them all. "K8S_" may be left out.`,
		Example: "  sandboxctl explain K8S_POD_STARTUP_TIMEOUT",
		Args:    atMost(1),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return codeCompletions(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error { return runExplain(args, output, env) },
	}
	output.addFlag(cmd)
	return cmd
}

func runExplain(args []string, output outputFormat, env environment) error {
	entries := failure.Catalogue()
	if len(args) > 0 {
		entry, ok := failure.Lookup(args[0])
		if !ok {
			return unknownCode(args[0])
		}
		entries = []failure.Entry{entry}
	}
	switch {
	case output == outputJSON:
		return printJSON(env.stdout, explainInfo{formatVersion, entries})
	case len(args) > 0:
		return printEntry(env.stdout, entries[0])
	default:
		return printEntries(env.stdout, entries)
	}
}

func unknownCode(text string) error {
	var codes []string
	for _, entry := range failure.Catalogue() {
		codes = append(codes, string(entry.Code))
	}
	message := fmt.Sprintf("there is no code %s; sandboxctl explain lists them all", diagnostic.Quote(text))
	if hint := diagnostic.DidYouMean(text, codes); hint != "" {
		message += ". " + hint
	}
	return errors.New(message)
}

func codeCompletions() []string {
	var completions []string
	for _, entry := range failure.Catalogue() {
		completions = append(completions, cobra.CompletionWithDesc(string(entry.Code), entry.Title))
	}
	return completions
}

// printEntry prints all that there is to know about a code.
func printEntry(out io.Writer, entry failure.Entry) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%s: %s\n", entry.Code, entry.Title)
	switch {
	case entry.Tracking == "":
		fmt.Fprintf(&text, "status %d; a code that AgentPane lacks\n", entry.Status)
	case entry.Status == 0:
		fmt.Fprintf(&text, "the server's own status, %s\n", entry.Tracking)
	default:
		fmt.Fprintf(&text, "status %d, %s\n", entry.Status, entry.Tracking)
	}
	fmt.Fprintf(&text, "\n%s\n", entry.Meaning)
	printList(&text, "Likely causes", entry.Causes)
	printList(&text, "What to do", entry.Remedies)
	_, err := io.WriteString(out, text.String())
	return err
}

func printList(text *strings.Builder, title string, items []string) {
	fmt.Fprintf(text, "\n%s:\n", title)
	for _, item := range items {
		fmt.Fprintf(text, "  - %s\n", item)
	}
}

// printEntries prints the table of all codes.
func printEntries(out io.Writer, entries []failure.Entry) error {
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "CODE\tMEANS")
	for _, entry := range entries {
		fmt.Fprintf(table, "%s\t%s\n", entry.Code, entry.Title)
	}
	return table.Flush()
}
