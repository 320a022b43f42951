package report

import (
	"fmt"
	"math"
	"slices"

	"github.com/zeolite-go/zeolite/tests/bench/stats"
)

// A point of a series is a sample at an x.
type point struct {
	x float64
	y stats.Sample
}

// A series is one line of a chart.
type series struct {
	contender string
	points    []point
}

// A chart shows how something grows: both scales are logarithmic.
type chart struct {
	title, x, y string
	format      func(float64) string // of numbers on the y axis
	series      []series
}

const (
	chartWidth  = 760
	chartHeight = 420
	marginLeft  = 70
	marginRight = 24
	marginLow   = 48
)

// svg draws the chart; empty if there is nothing to draw.
func (c chart) svg() string {
	xs, low, high := c.extent()
	if len(xs) == 0 {
		return ""
	}
	d := newDrawing(chartWidth, chartHeight)
	d.title(c.title)
	var names []string
	for _, s := range c.series {
		names = append(names, s.contender)
	}
	top := d.legend(names) + 34
	yScale := newLogScale(low, high, chartHeight-marginLow, top)
	xScale := newLogScale(xs[0], xs[len(xs)-1], marginLeft+12, chartWidth-marginRight)
	xScale.tight(xs[0], xs[len(xs)-1])
	for _, t := range yScale.ticks() {
		y := yScale.at(t)
		d.line(marginLeft, y, chartWidth-marginRight, y, grid, 1)
		d.text(marginLeft-6, y+4, "end", pale, c.format(t))
	}
	for _, x := range xs {
		d.line(xScale.at(x), top, xScale.at(x), chartHeight-marginLow, grid, 1)
		d.text(xScale.at(x), chartHeight-marginLow+18, "middle", pale, short(x))
	}
	d.text((marginLeft+chartWidth-marginRight)/2, chartHeight-10, "middle", ink, c.x)
	d.text(12, top-10, "start", ink, c.y)
	for _, s := range slices.Backward(c.series) {
		var line [][2]float64
		for _, p := range s.points {
			x := xScale.at(p.x)
			d.line(x, yScale.at(p.y.Min()), x, yScale.at(p.y.Max()), styles[s.contender].color, 1)
			line = append(line, [2]float64{x, yScale.at(p.y.Median())})
		}
		d.path(line, styles[s.contender])
		for _, at := range line {
			d.dot(at[0], at[1], styles[s.contender].color)
		}
	}
	return d.String()
}

// extent returns the x values in order, and the range of y.
func (c chart) extent() (xs []float64, low, high float64) {
	low = math.Inf(1)
	for _, s := range c.series {
		for _, p := range s.points {
			if !slices.Contains(xs, p.x) {
				xs = append(xs, p.x)
			}
			low, high = min(low, p.y.Min()), max(high, p.y.Max())
		}
	}
	slices.Sort(xs)
	return xs, low, high
}

// A logScale maps numbers to places on an axis.
type logScale struct{ low, high, from, to float64 }

// newLogScale covers a range, with some room at both ends.
func newLogScale(low, high, from, to float64) logScale {
	return logScale{math.Log10(low) - .06, math.Log10(high) + .06, from, to}
}

// tight covers exactly a range, unless it is a single number.
func (l *logScale) tight(low, high float64) {
	if low < high {
		l.low, l.high = math.Log10(low), math.Log10(high)
	}
}

func (l logScale) at(x float64) float64 {
	return l.from + (math.Log10(x)-l.low)/(l.high-l.low)*(l.to-l.from)
}

// ticks are powers of ten, and 2 and 5 times them where there is room.
func (l logScale) ticks() (all []float64) {
	steps := []float64{1}
	if l.high-l.low < 3 {
		steps = []float64{1, 2, 5}
	}
	for power := math.Floor(l.low); power <= l.high; power++ {
		for _, s := range steps {
			if t := s * math.Pow(10, power); math.Log10(t) >= l.low && math.Log10(t) <= l.high {
				all = append(all, t)
			}
		}
	}
	return all
}

// short writes a number for an axis: 20k, 5M.
func short(x float64) string {
	switch {
	case x >= 1e9:
		return fmt.Sprintf("%gG", x/1e9)
	case x >= 1e6:
		return fmt.Sprintf("%gM", x/1e6)
	case x >= 1e3:
		return fmt.Sprintf("%gk", x/1e3)
	}
	return fmt.Sprintf("%.3g", x)
}

// A barChart compares one number.
type barChart struct {
	title  string
	log    bool // the scale
	format func(float64) string
	groups []barGroup
}

// A barGroup is bars with a common heading.
type barGroup struct {
	title string
	bars  []series // one point each
}

func (c barChart) svg() string {
	const rowHeight, left, right = 20, 230, 110
	rows, low, high := 0, math.Inf(1), 0.0
	for _, g := range c.groups {
		rows += len(g.bars) + 1
		for _, b := range g.bars {
			low, high = min(low, b.points[0].y.Median()), max(high, b.points[0].y.Max())
		}
	}
	if high == 0 {
		return ""
	}
	d := newDrawing(chartWidth, float64(rows*rowHeight+56))
	d.title(c.title)
	length := func(x float64) float64 {
		if c.log {
			from := math.Floor(math.Log10(low))
			return max(0, (math.Log10(x)-from)/(math.Log10(high)-from)) * (chartWidth - left - right)
		}
		return x / high * (chartWidth - left - right)
	}
	y := 40.0
	for _, g := range c.groups {
		d.text(12, y+14, "start", ink, g.title)
		y += rowHeight
		for _, b := range g.bars {
			s, v := styles[b.contender], b.points[0].y
			d.text(left-8, y+14, "end", pale, label(b.contender))
			d.rect(left, y+3, length(v.Median()), rowHeight-6, s.fill())
			middle := y + rowHeight/2
			d.line(left+length(v.Min()), middle, left+length(v.Max()), middle, ink, 1)
			d.text(left+length(v.Max())+6, y+14, "start", ink, c.format(v.Median()))
			y += rowHeight
		}
	}
	if c.log {
		d.text(chartWidth-12, y+12, "end", pale, "logarithmic scale")
	}
	return d.String()
}
