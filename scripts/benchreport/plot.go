package main

import (
	"fmt"
	"html"
	"io"
)

// Sizes of the picture, in pixels.
const (
	barLeft  = 420 // names are left of it
	barScale = 300 // a target reached
	barMost  = 2   // targets: longer bars are cut
	barStep  = 22
	barRight = 110 // for numbers
	barTop   = 40
)

// draw writes an SVG with a bar for each row that has a target. A bar that reaches the
// line reaches its target, whether more or less is better.
func draw(out io.Writer, rows []row) {
	var bars []row
	for _, r := range rows {
		if _, ok := r.reached(); ok {
			bars = append(bars, r)
		}
	}
	width, height := barLeft+barMost*barScale+barRight, barTop+barStep*len(bars)+10
	fmt.Fprintf(out, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" font-family="sans-serif" font-size="13">`+"\n", width, height)
	fmt.Fprintf(out, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	for i, r := range bars {
		drawBar(out, r, barTop+barStep*i)
	}
	x := barLeft + barScale
	fmt.Fprintf(out, `<text x="%d" y="20" text-anchor="middle">target</text>`+"\n", x)
	fmt.Fprintf(out, `<line x1="%d" y1="28" x2="%[1]d" y2="%d" stroke="black"/>`+"\n</svg>\n", x, height-6)
}

func drawBar(out io.Writer, r row, y int) {
	share, _ := r.reached()
	color := "#2b7bba"
	if share < 1 {
		color = "#c8552b"
	}
	long := min(share, barMost) * barScale
	fmt.Fprintf(out, `<text x="%d" y="%d" text-anchor="end">%s</text>`, barLeft-8, y+14, html.EscapeString(r.Name))
	fmt.Fprintf(out, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, barLeft, y+2, long, barStep-6, color)
	fmt.Fprintf(out, `<text x="%.1f" y="%d">%s (%s)</text>`+"\n", barLeft+long+6, y+14, number(r.Value), html.EscapeString(r.Target))
}
