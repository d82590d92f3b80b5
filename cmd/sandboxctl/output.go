package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// formatVersion is the "formatVersion" of all JSON that sandboxctl prints; it
// changes when a field changes its meaning or goes.
const formatVersion = "1"

// outputFormat is the value of --output.
type outputFormat string

const (
	outputText     outputFormat = "text"
	outputJSON     outputFormat = "json"
	outputMarkdown outputFormat = "markdown"
	outputGitHub   outputFormat = "github"
)

// addFlag gives cmd the flag --output, with completion. Every command that has
// it knows text and JSON; more are given.
func (o *outputFormat) addFlag(cmd *cobra.Command, more ...outputFormat) {
	addWordFlag(cmd, o, "output", "o", "output format", append([]outputFormat{outputText, outputJSON}, more...)...)
}

// addWordFlag gives cmd a flag that takes one of a few words, the first by
// default, with completion.
func addWordFlag[T ~string](cmd *cobra.Command, value *T, name, shorthand, usage string, words ...T) {
	*value = words[0]
	flag := &wordFlag[T]{value, words}
	cmd.Flags().VarP(flag, name, shorthand, usage+": "+flag.choice())
	_ = cmd.RegisterFlagCompletionFunc(name, // fails only for a flag that does not exist
		cobra.FixedCompletions(flag.texts(), cobra.ShellCompDirectiveNoFileComp))
}

// wordFlag sets a value to one of a few words.
type wordFlag[T ~string] struct {
	value *T
	words []T
}

func (f *wordFlag[T]) texts() []string {
	var texts []string
	for _, word := range f.words {
		texts = append(texts, string(word))
	}
	return texts
}

func (f *wordFlag[T]) choice() string {
	texts := f.texts()
	last := len(texts) - 1
	return strings.Join(texts[:last], ", ") + " or " + texts[last]
}

// Set, String and Type make it a flag value.
func (f *wordFlag[T]) Set(text string) error {
	if !slices.Contains(f.words, T(text)) {
		return fmt.Errorf("want %s", f.choice())
	}
	*f.value = T(text)
	return nil
}

func (f *wordFlag[T]) String() string { return string(*f.value) }
func (f *wordFlag[T]) Type() string   { return "word" }

func printJSON(out io.Writer, value any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}
