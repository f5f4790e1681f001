package manifests

import (
	"fmt"
	"strings"
)

// The words of instructions are a Dockerfile's: spaces part them, a backslash
// takes a character's meaning, single quotes that of all but themselves, double
// quotes that of spaces; $NAME and ${NAME} stand for what the environment has,
// ${NAME:-WORD} for WORD where it has none, ${NAME:+WORD} where it has some.

// word expands a text that is one word, spaces and all.
func (x *changer) word(text string) (string, error) {
	l := &lexer{rest: text, vars: x.vars}
	out, err := l.take("")
	if err == nil && out == "" {
		err = fmt.Errorf("it is empty")
	}
	return out, err
}

// words parts and expands a text.
func (x *changer) words(text string) (list []string, err error) {
	for l := (&lexer{rest: text, vars: x.vars}); ; {
		if l.rest = strings.TrimLeft(l.rest, " \t"); l.rest == "" {
			return list, nil
		}
		word, err := l.take(" \t")
		if err != nil {
			return nil, err
		}
		list = append(list, word)
	}
}

// pairs reads K=V K=V …, or the older K V, where the rest of the line is the
// value.
func (x *changer) pairs(text string) (list [][2]string, err error) {
	first := text
	if i := strings.IndexAny(text, " \t"); i >= 0 {
		first = text[:i]
	}
	if !strings.Contains(first, "=") && !strings.ContainsAny(first, `"'`) {
		rest := strings.TrimSpace(text[len(first):])
		if rest == "" {
			return nil, fmt.Errorf("want NAME=VALUE")
		}
		key, err := x.word(first)
		if err != nil {
			return nil, err
		}
		value, err := (&lexer{rest: rest, vars: x.vars}).take("")
		return [][2]string{{key, value}}, err
	}
	for l := (&lexer{rest: text, vars: x.vars}); ; {
		if l.rest = strings.TrimLeft(l.rest, " \t"); l.rest == "" {
			return list, nil
		}
		key, err := l.take(" \t=")
		if err != nil {
			return nil, err
		}
		if key == "" || !strings.HasPrefix(l.rest, "=") || strings.Contains(key, "=") {
			return nil, fmt.Errorf("want NAME=VALUE")
		}
		l.rest = l.rest[1:]
		value, err := l.take(" \t")
		if err != nil {
			return nil, err
		}
		list = append(list, [2]string{key, value})
	}
}

// lexer takes words off a text.
type lexer struct {
	rest  string
	vars  []string
	depth int
}

// maxExpanded bounds a word after expansion, in bytes: what a program can be
// given as one argument.
const maxExpanded = 128 << 10

// take reads up to one of the bytes of end outside of quotes, or to the end of
// the text.
func (l *lexer) take(end string) (string, error) {
	var b strings.Builder
	quoted := byte(0)
	for l.rest != "" {
		ch := l.rest[0]
		switch {
		case quoted == 0 && strings.IndexByte(end, ch) >= 0:
			return b.String(), nil
		case ch == quoted:
			quoted = 0
		case quoted == 0 && (ch == '"' || ch == '\''):
			quoted = ch
		case ch == '\\' && quoted != '\'' && len(l.rest) > 1 && (quoted == 0 || strings.IndexByte(`"$\`, l.rest[1]) >= 0):
			b.WriteByte(l.rest[1])
			l.rest = l.rest[1:]
		case ch == '$' && quoted != '\'':
			value, err := l.variable()
			if err != nil {
				return "", err
			}
			b.WriteString(value)
			if b.Len() > maxExpanded {
				return "", fmt.Errorf("it is longer than %d bytes when variables are put in", maxExpanded)
			}
			continue
		default:
			b.WriteByte(ch)
		}
		l.rest = l.rest[1:]
	}
	if quoted != 0 {
		return "", fmt.Errorf("a quote is not closed")
	}
	return b.String(), nil
}

// variable takes a variable off the text.
func (l *lexer) variable() (string, error) {
	l.rest = l.rest[1:]
	if !strings.HasPrefix(l.rest, "{") {
		name := variableName(l.rest)
		l.rest = l.rest[len(name):]
		if name == "" {
			return "$", nil
		}
		return l.lookup(name), nil
	}
	l.rest = l.rest[1:]
	name := variableName(l.rest)
	l.rest = l.rest[len(name):]
	if name == "" {
		return "", fmt.Errorf("${ is not followed by a name")
	}
	value := l.lookup(name)
	if strings.HasPrefix(l.rest, "}") {
		l.rest = l.rest[1:]
		return value, nil
	}
	if len(l.rest) < 2 || l.rest[0] != ':' || l.rest[1] != '-' && l.rest[1] != '+' {
		return "", fmt.Errorf("only ${NAME}, ${NAME:-WORD} and ${NAME:+WORD} are known")
	}
	instead := l.rest[1]
	const maxNested = 8 // nobody reads more
	if l.depth++; l.depth > maxNested {
		return "", fmt.Errorf("variables are nested too deep")
	}
	l.rest = l.rest[2:]
	word, err := l.take("}")
	l.depth--
	if err != nil {
		return "", err
	}
	if l.rest == "" {
		return "", fmt.Errorf("${%s is not closed", name)
	}
	l.rest = l.rest[1:]
	if (value == "") == (instead == '-') {
		return word, nil
	}
	if instead == '+' {
		return "", nil
	}
	return value, nil
}

func variableName(s string) string {
	n := 0
	for n < len(s) && (s[n] == '_' || s[n] >= 'a' && s[n] <= 'z' || s[n] >= 'A' && s[n] <= 'Z' || n > 0 && s[n] >= '0' && s[n] <= '9') {
		n++
	}
	return s[:n]
}

func (l *lexer) lookup(name string) string {
	for _, kv := range l.vars {
		if k, v, ok := strings.Cut(kv, "="); ok && k == name {
			return v
		}
	}
	return ""
}
