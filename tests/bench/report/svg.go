package report

import (
	"fmt"
	"html"
	"strings"
)

// A drawing is an SVG image under construction.
type drawing struct {
	b             strings.Builder
	width, height float64
}

func newDrawing(width, height float64) *drawing {
	d := &drawing{width: width, height: height}
	fmt.Fprintf(&d.b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" width="%[1]g" height="%[2]g" font-family="Helvetica, Arial, sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&d.b, `<rect width="%g" height="%g" fill="white"/>`+"\n", width, height)
	return d
}

func (d *drawing) String() string { return d.b.String() + "</svg>\n" }

func (d *drawing) line(x1, y1, x2, y2 float64, color string, width float64) {
	fmt.Fprintf(&d.b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="%g"/>`+"\n", x1, y1, x2, y2, color, width)
}

func (d *drawing) path(points [][2]float64, s style) {
	var p strings.Builder
	for i, at := range points {
		fmt.Fprintf(&p, "%c%.1f %.1f", "ML"[min(i, 1)], at[0], at[1])
	}
	dash := ""
	if s.dash != "" {
		dash = fmt.Sprintf(` stroke-dasharray="%s"`, s.dash)
	}
	fmt.Fprintf(&d.b, `<path d="%s" fill="none" stroke="%s" stroke-width="2"%s/>`+"\n", p.String(), s.color, dash)
}

func (d *drawing) dot(x, y float64, color string) {
	fmt.Fprintf(&d.b, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>`+"\n", x, y, color)
}

func (d *drawing) rect(x, y, w, h float64, color string) {
	fmt.Fprintf(&d.b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n", x, y, max(w, 0.5), h, color)
}

// text writes at a baseline; anchor is start, middle or end.
func (d *drawing) text(x, y float64, anchor, color, s string) {
	fmt.Fprintf(&d.b, `<text x="%.1f" y="%.1f" text-anchor="%s" fill="%s">%s</text>`+"\n", x, y, anchor, color, html.EscapeString(s))
}

func (d *drawing) title(s string) {
	fmt.Fprintf(&d.b, `<text x="12" y="22" font-size="14" font-weight="bold" fill="%s">%s</text>`+"\n", ink, html.EscapeString(s))
}

const (
	ink  = "#222"
	pale = "#666"
	grid = "#ddd"
)

// A style is how a contender is drawn, in every chart alike.
type style struct{ color, dash string }

// fill is the colour of bars: paler where a line would be dashed.
func (s style) fill() string {
	if s.dash == "6 4" {
		return map[string]string{"#0b62c4": "#7db3ea", "#e07b00": "#f3bd78"}[s.color]
	}
	return s.color
}

var styles = map[string]style{
	"zeolite M5": {"#0b62c4", ""},
	"zeolite Z5": {"#0b62c4", "6 4"},
	"zeolite":    {"#0b62c4", ""},
	"python M5":  {"#e07b00", ""},
	"python Z5":  {"#e07b00", "6 4"},
	"python":     {"#e07b00", ""},
	"uvloop M5":  {"#b3261e", ""},
	"grpc":       {"#2e8540", ""},
	"drpc":       {"#7b4fb5", ""},
	"netrpc":     {"#00909e", ""},
	"floor":      {"#888888", "2 3"},
}

// labels are the names of contenders for readers.
var labels = map[string]string{
	"zeolite M5": "zeolite, msgpack", "zeolite Z5": "zeolite, pickle", "zeolite": "zeolite",
	"python M5": "Python ZEO, msgpack", "python Z5": "Python ZEO, pickle", "python": "Python",
	"uvloop M5": "Python ZEO, uvloop", "grpc": "gRPC-go", "drpc": "storj drpc", "netrpc": "net/rpc", "floor": "the machine's floor",
}

func label(contender string) string {
	if l := labels[contender]; l != "" {
		return l
	}
	return contender
}

// order is how contenders are listed.
var order = []string{"zeolite", "zeolite M5", "zeolite Z5", "python", "python M5", "python Z5", "uvloop M5", "grpc", "drpc", "netrpc", "floor"}

// legend draws names with their styles below the title, and returns where it
// ends.
func (d *drawing) legend(contenders []string) float64 {
	x, y := 12.0, 42.0
	for _, c := range contenders {
		w := 48 + 7*float64(len(label(c)))
		if x+w > d.width {
			x, y = 12, y+18
		}
		d.path([][2]float64{{x, y - 4}, {x + 24, y - 4}}, styles[c])
		d.text(x+30, y, "start", ink, label(c))
		x += w
	}
	return y
}
