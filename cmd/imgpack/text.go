package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/imgpack/imgpack/internal/quote"
)

// printable makes text of any origin safe for a terminal: one line, and
// nothing in it but what has a glyph. Letters of all scripts stay.
func printable(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '\n':
			b.WriteString("; ")
		case r == utf8.RuneError && n == 1:
			b.WriteString(`\x` + strconv.FormatUint(uint64(s[i]), 16))
		case strconv.IsPrint(r):
			b.WriteRune(r)
		default:
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		}
		i += n
	}
	return b.String()
}

// printableLines is printable for text whose line breaks and tabs are meant.
func printableLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		cells := strings.Split(line, "\t")
		for j, c := range cells {
			cells[j] = printable(c)
		}
		lines[i] = strings.Join(cells, "\t")
	}
	return strings.Join(lines, "\n")
}

// plainJSON escapes, inside marshalled JSON, what encoding/json leaves as it
// is and a terminal may obey: DEL, C1 controls, bidirectional marks.
func plainJSON(raw []byte) []byte {
	if bytes.IndexFunc(raw, notPlain) < 0 {
		return raw
	}
	out := make([]byte, 0, len(raw)+16)
	for len(raw) > 0 {
		r, n := utf8.DecodeRune(raw)
		if notPlain(r) {
			for _, unit := range utf16.Encode([]rune{r}) {
				out = fmt.Appendf(out, `\u%04x`, unit)
			}
		} else {
			out = append(out, raw[:n]...)
		}
		raw = raw[n:]
	}
	return out
}

func notPlain(r rune) bool { return r != '\n' && r != '\t' && !strconv.IsPrint(r) }

// cell is foreign text for a table: printable ASCII, of any length.
func cell(s string) string {
	if len(s) <= quote.Max {
		return quote.Clean(s)
	}
	var b strings.Builder
	for len(s) > 0 {
		n := min(len(s), quote.Max)
		for n < len(s) && n > 1 && !utf8.RuneStart(s[n]) {
			n--
		}
		b.WriteString(quote.Clean(s[:n]))
		s = s[n:]
	}
	return b.String()
}

// size is a number of bytes as docker prints it: decimal, one digit, two from
// gigabytes on.
func size(n int64) string {
	const units = "kMGTPE"
	if n < 1000 && n > -1000 {
		return strconv.FormatInt(n, 10) + " B"
	}
	f, unit := float64(n)/1000, 0
	for (f >= 999.95 || f <= -999.95) && unit < len(units)-1 {
		f /= 1000
		unit++
	}
	digits := 1
	if unit >= 2 {
		digits = 2
	}
	return strconv.FormatFloat(f, 'f', digits, 64) + " " + units[unit:unit+1] + "B"
}

// size is size, or the exact number with --bytes.
func (a *app) size(n int64) string {
	if a.g.bytes {
		return strconv.FormatInt(n, 10)
	}
	return size(n)
}

// count is a number and its noun.
func count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return strconv.Itoa(n) + " " + noun
}

// ago is how long ago t was, as docker says it; "N/A" for a time not known.
func ago(now, t time.Time) string {
	if t.IsZero() || t.Unix() <= 0 {
		return "N/A"
	}
	return lasting(now.Sub(t)) + " ago"
}

// lasting is a time span in docker's words.
func lasting(d time.Duration) string {
	switch hours := int(d.Round(time.Hour).Hours()); {
	case d < time.Second:
		return "Less than a second"
	case d < 2*time.Second:
		return "1 second"
	case d < time.Minute:
		return strconv.Itoa(int(d.Seconds())) + " seconds"
	case d < 2*time.Minute:
		return "About a minute"
	case d < time.Hour:
		return strconv.Itoa(int(d.Minutes())) + " minutes"
	case hours == 1:
		return "About an hour"
	case hours < 48:
		return strconv.Itoa(hours) + " hours"
	case hours < 24*7*2:
		return strconv.Itoa(hours/24) + " days"
	case hours < 24*30*2:
		return strconv.Itoa(hours/24/7) + " weeks"
	case hours < 24*365*2:
		return strconv.Itoa(hours/24/30) + " months"
	default:
		return strconv.Itoa(hours/24/365) + " years"
	}
}

// duration is a time span for people.
func duration(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	case d < 2*time.Minute:
		return strconv.Itoa(int(d.Seconds()+0.5)) + " s"
	default:
		d = d.Round(time.Second)
		return strconv.Itoa(int(d/time.Minute)) + " min " + strconv.Itoa(int(d%time.Minute/time.Second)) + " s"
	}
}

// short is the twelve digits of a digest that docker shows.
func (a *app) short(digest string) string {
	if a.g.noTrunc {
		return digest
	}
	_, hex, ok := strings.Cut(digest, ":")
	if !ok || len(hex) < 12 {
		return digest
	}
	return hex[:12]
}
