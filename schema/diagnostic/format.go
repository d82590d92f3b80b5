package diagnostic

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Style says how to draw.
type Style struct {
	// Color adds ANSI colours.
	Color bool
	// Width is where text is wrapped and a long line of the file is cut; 0 wraps nothing and cuts at 120.
	Width int
}

// Format returns the finding as a block of lines, the last one ended. The rule on the left shows where it begins and
// ends, so that whoever copies it into a bug report copies all of it.
func Format(d Diagnostic, style Style) string {
	c := palette{style.Color, d.Severity}
	var lines []string
	lines = append(lines, c.severity(d.Severity.String()+":")+" "+c.bold(clean(d.Summary)))
	if d.Subject.File != nil {
		where := d.Subject.String()
		if d.Path != "" {
			where += ", at " + d.Path
		}
		lines = append(lines, "", "  "+clean(where))
		lines = append(lines, snippet(d.Subject, c, style.Width)...)
	}
	if d.Related != nil {
		lines = append(lines, "", "  "+clean(d.Related.Range.String())+", "+clean(d.Related.Message))
		lines = append(lines, snippet(d.Related.Range, c, style.Width)...)
	}
	if d.Detail != "" {
		lines = append(lines, "")
		for paragraph := range strings.Lines(d.Detail) {
			lines = append(lines, wrap(clean(strings.TrimSuffix(paragraph, "\n")), style.Width-2)...)
		}
	}
	var b strings.Builder
	b.WriteString(c.severity("╷") + "\n")
	for _, line := range lines {
		b.WriteString(strings.TrimRight(c.severity("│")+" "+line, " ") + "\n")
	}
	b.WriteString(c.severity("╵") + "\n")
	return b.String()
}

// defaultWidth is where a line of the file is cut when nobody says how wide the view is.
const defaultWidth = 120

// snippet returns the line of the range, with its number, and the marks below it. Of a line that is too long only the
// part around the range is shown.
func snippet(r Range, c palette, width int) []string {
	if width <= 0 {
		width = defaultWidth
	}
	number := fmt.Sprintf("%4d", r.Start.Line)
	room := max(width-len(number)-6, 20)
	runes := []rune(clean(r.File.Line(r.Start.Line)))
	start := min(r.Start.Column-1, len(runes))
	end := max(start+1, min(r.End.Column-1, len(runes)))
	first := 0
	if len(runes) > room {
		first = max(0, min(start-room/3, len(runes)-room))
		runes = runes[first:min(first+room, len(runes))]
		if first > 0 {
			runes[0] = '…'
		}
	}
	marks := strings.Repeat("^", max(1, min(end-first, room)-(start-first)))
	gap := strings.Repeat(" ", len(number))
	return []string{
		"",
		c.dim(number+" │") + " " + string(runes),
		c.dim(gap+" │") + " " + strings.Repeat(" ", start-first) + c.severity(marks),
	}
}

// wrap breaks text at spaces so that no line is longer than width; never when width is not positive.
func wrap(text string, width int) []string {
	if width <= 0 {
		return []string{text}
	}
	var lines []string
	line := text[:len(text)-len(strings.TrimLeft(text, " "))]
	for word := range strings.FieldsSeq(text) {
		if strings.TrimSpace(line) != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			lines = append(lines, line)
			line = word
			continue
		}
		if strings.TrimSpace(line) != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

// clean returns text as it may be shown on a terminal: one column per character, and nothing that could move the
// cursor, change colours or, as bidirectional marks do, show the line other than it is. The file may be a stranger's.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return unicode.ReplacementChar
		default:
			return r
		}
	}, text)
}

// palette paints, or does not.
type palette struct {
	color bool
	level Severity
}

func (p palette) severity(text string) string {
	if p.level == Warning {
		return p.paint("33", text)
	}
	return p.paint("31", text)
}

func (p palette) bold(text string) string { return p.paint("1", text) }

func (p palette) dim(text string) string { return p.paint("2", text) }

func (p palette) paint(code, text string) string {
	if !p.color || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}
