package schema

import (
	"fmt"
	"strings"

	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

// layout reports a layout of one's own that tmux would not take, or not as it is: it begins with its checksum, and has a
// cell for each pane.
func (c *checker) layout(at []any, w *Window) {
	path := under(at, "layout")
	sum, cells, printed := strings.Cut(w.Layout, ",")
	if !printed || !c.sound(path...) {
		return
	}
	if right := layoutChecksum(cells); sum != right {
		c.report(path, "The layout's checksum is "+diagnostic.Quote(right)+", not "+diagnostic.Quote(sum),
			"tmux takes a layout only as it was printed. Copy the whole of it: tmux display-message -p '#{window_layout}'")
	}
	// each cell has a size, <width>x<height>, and those that hold others have a bracket behind it
	n := strings.Count(cells, "x") - strings.Count(cells, "{") - strings.Count(cells, "[")
	if panes := under(at, "panes"); n != len(w.Panes) && c.fleet.says(panes...) && c.sound(panes...) {
		d := c.report(path, fmt.Sprintf("The number of panes is %d in the layout, and %d in the window", n, len(w.Panes)),
			"Take a layout of as many panes, or one of those that have a name.")
		c.related(d, "the panes", panes...)
	}
}

// layoutChecksum is tmux's own: see layout_checksum in its layout-custom.c.
func layoutChecksum(cells string) string {
	var sum uint16
	for i := range len(cells) {
		sum = sum>>1 + (sum&1)<<15 + uint16(cells[i])
	}
	return fmt.Sprintf("%04x", sum)
}
