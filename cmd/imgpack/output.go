package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/template"
	"time"
)

// envelope opens every JSON document.
type envelope struct {
	Kind    string `json:"kind"`
	Version int    `json:"version"`
}

func kind(name string) envelope { return envelope{"imgpack." + name, 1} }

// listDoc is a document that is a list.
type listDoc[T any] struct {
	envelope
	Items []T `json:"items"`
}

// listing is what a command that shows things found, in every shape it may
// be asked for.
type listing[T any] struct {
	doc   any // for --json
	items []T
	name  func(T) string // for --format name and -q
	human func() error   // for --format table
	quiet func() error   // for -q, where that is not the names
}

// show prints the listing as --format says.
func show[T any](a *app, l listing[T]) error {
	switch format := a.g.format; {
	case format == "json":
		return a.printJSON(l.doc)
	case format == "table" && a.g.quiet && l.quiet != nil:
		return l.quiet()
	case format == "jsonl":
		for _, it := range l.items {
			if err := a.printLine(it); err != nil {
				return err
			}
		}
		return nil
	case format == "name", format == "table" && a.g.quiet:
		return printEach(a, l.items, l.name)
	case format == "table":
		return l.human()
	case strings.HasPrefix(format, "table "):
		return showTemplateTable(a, format, l.items)
	default:
		return showTemplate(a, format, l.items)
	}
}

// printEach prints a word of each item on a line.
func printEach[T any](a *app, items []T, word func(T) string) error {
	for _, it := range items {
		if _, err := fmt.Fprintln(a.Out, printable(word(it))); err != nil {
			return err
		}
	}
	return nil
}

// printJSON prints one document, indented.
func (a *app) printJSON(doc any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(doc); err != nil {
		return err
	}
	_, err := a.Out.Write(plainJSON(b.Bytes()))
	return err
}

// printLine prints one object on one line.
func (a *app) printLine(item any) error {
	raw, err := json.Marshal(item)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.Out, "%s\n", plainJSON(raw))
	return err
}

// printf prints foreign-safe text on stdout.
func (a *app) printf(format string, args ...any) error {
	_, err := io.WriteString(a.Out, printableLines(fmt.Sprintf(format, args...)))
	return err
}

// note says something on stderr that is no error; -q silences it.
func (a *app) note(format string, args ...any) {
	if !a.g.quiet {
		fmt.Fprintf(a.Err, "%s\n", printable(fmt.Sprintf(format, args...)))
	}
}

// verbose is note for -v.
func (a *app) verbose(format string, args ...any) {
	if a.g.verbose > 0 {
		a.note(format, args...)
	}
}

// templateFuncs are the helpers of --format templates.
func (a *app) templateFuncs() template.FuncMap {
	return template.FuncMap{
		"json": func(v any) (string, error) {
			raw, err := json.Marshal(v)
			return string(plainJSON(raw)), err
		},
		"join":  func(list []string, sep string) string { return strings.Join(list, sep) },
		"lower": strings.ToLower,
		"upper": strings.ToUpper,
		"pad": func(s string, before, after int) string {
			return strings.Repeat(" ", before) + s + strings.Repeat(" ", after)
		},
		"size":  func(n int64) string { return size(n) },
		"time":  func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"short": func(v any) string { return a.short(fmt.Sprint(v)) },
	}
}

func (a *app) parseTemplate(text string) (*template.Template, error) {
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
	t, err := template.New("format").Funcs(a.templateFuncs()).Parse(text)
	if err != nil {
		return nil, usagef("--format: %s", strings.TrimPrefix(err.Error(), "template: ")).
			hint("formats are table, json, jsonl, name, or a Go template such as '{{.Digest}}'")
	}
	return t, nil
}

// expand runs a template on one item.
func expand(t *template.Template, item any) (string, error) {
	var b strings.Builder
	if err := t.Execute(&b, item); err != nil {
		return "", usagef("--format: %s", strings.TrimPrefix(err.Error(), "template: ")).
			hint("--format json shows the fields there are")
	}
	return b.String(), nil
}

func showTemplate[T any](a *app, text string, items []T) error {
	t, err := a.parseTemplate(text)
	if err != nil {
		return err
	}
	for _, it := range items {
		line, err := expand(t, it)
		if err != nil {
			return err
		}
		if err := a.printf("%s\n", line); err != nil {
			return err
		}
	}
	return nil
}

// showTemplateTable is docker's "table TEMPLATE": columns between tabs, with
// the fields' names as heads.
func showTemplateTable[T any](a *app, format string, items []T) error {
	text := strings.TrimPrefix(format, "table ")
	t, err := a.parseTemplate(text)
	if err != nil {
		return err
	}
	var columns []column
	for _, part := range strings.Split(strings.ReplaceAll(text, `\t`, "\t"), "\t") {
		head := strings.Trim(part, "{} .")
		columns = append(columns, column{head: strings.ToUpper(head)})
	}
	tab := newTable(columns...)
	for _, it := range items {
		line, err := expand(t, it)
		if err != nil {
			return err
		}
		cells := strings.Split(line, "\t")
		tab.add(cells[:min(len(cells), len(columns))]...)
	}
	return tab.write(a.Out, a.tableWidth(), true)
}

// tableWidth is the width tables are fitted to: none in a pipe, nor with
// --no-trunc.
func (a *app) tableWidth() int {
	if a.g.noTrunc {
		return 0
	}
	return a.width
}
