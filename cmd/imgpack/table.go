package main

import (
	"bufio"
	"io"
	"strings"
	"unicode/utf8"
)

// column says how a column of a table is laid out.
type column struct {
	head  string
	right bool // numbers
	drop  int  // on a narrow terminal the highest goes first; 0 always stays
	max   int  // on a terminal, cut at this many characters; 0 is any
}

// table is text in columns: left-aligned text, right-aligned numbers, two
// spaces between. On a terminal too narrow for it, whole columns are left
// out; anywhere else nothing is. All cells are made safe to print.
type table struct {
	columns []column
	rows    [][]string
}

func newTable(columns ...column) *table { return &table{columns: columns} }

func (t *table) add(cells ...string) {
	row := make([]string, len(t.columns))
	for i, c := range cells {
		row[i] = cell(c)
	}
	t.rows = append(t.rows, row)
}

// write prints the table for a terminal of the given width, or in full when
// width is 0.
func (t *table) write(w io.Writer, width int, heads bool) error {
	widths := t.measure(width > 0, heads)
	keep := t.fit(widths, width)
	out := bufio.NewWriter(w)
	if heads {
		cells := make([]string, len(t.columns))
		for i, c := range t.columns {
			cells[i] = c.head
		}
		t.line(out, cells, widths, keep)
	}
	for _, row := range t.rows {
		t.line(out, row, widths, keep)
	}
	return out.Flush()
}

func (t *table) measure(cut, heads bool) []int {
	widths := make([]int, len(t.columns))
	for i, c := range t.columns {
		if heads {
			widths[i] = len(c.head)
		}
		for _, row := range t.rows {
			if cut && c.max > 0 && utf8.RuneCountInString(row[i]) > c.max {
				row[i] = string([]rune(row[i])[:c.max-1]) + "…"
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	return widths
}

// fit says which columns are printed.
func (t *table) fit(widths []int, width int) []bool {
	keep := make([]bool, len(t.columns))
	total := -2
	for i := range keep {
		keep[i] = true
		total += widths[i] + 2
	}
	for width > 0 && total > width {
		worst := -1
		for i, c := range t.columns {
			if keep[i] && c.drop > 0 && (worst < 0 || c.drop > t.columns[worst].drop) {
				worst = i
			}
		}
		if worst < 0 {
			break
		}
		keep[worst] = false
		total -= widths[worst] + 2
	}
	return keep
}

func (t *table) line(out *bufio.Writer, cells []string, widths []int, keep []bool) {
	var b strings.Builder
	for i, c := range t.columns {
		if !keep[i] {
			continue
		}
		if b.Len() > 0 {
			b.WriteString("  ")
		}
		pad := strings.Repeat(" ", max(0, widths[i]-utf8.RuneCountInString(cells[i])))
		if c.right {
			b.WriteString(pad + cells[i])
		} else {
			b.WriteString(cells[i] + pad)
		}
	}
	out.WriteString(strings.TrimRight(b.String(), " "))
	out.WriteByte('\n')
}
