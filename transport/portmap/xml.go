package portmap

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds the nesting of elements; a description has at most 9.
const maxDepth = 32

// eachText calls f with the path of local names and the text of every element
// that has no child, as far as the document can be read. Namespaces are not
// compared: gateways get them wrong.
func eachText(r io.Reader, f func(path []string, text string)) error {
	b, readErr := io.ReadAll(r) // which callers limit
	doc := document(b)
	var path []string
	var text strings.Builder
	leaf := false
	for doc != "" {
		t, err := doc.next()
		if err != nil {
			return err
		}
		switch t.kind {
		case characters:
			if text.Len()+len(t.text) <= maxText {
				text.WriteString(t.text)
			}
			continue
		case begin, empty:
			if len(path) >= maxDepth {
				return fmt.Errorf("elements nest deeper than %d", maxDepth)
			}
			path = append(path, t.text)
			text.Reset()
			leaf = true
		}
		if t.kind == begin {
			continue
		}
		if len(path) == 0 {
			return errors.New("an element ends that never began")
		}
		if leaf {
			f(path, strings.TrimSpace(text.String()))
		}
		path, leaf = path[:len(path)-1], false
	}
	return readErr
}

// A document is what is left to read of an XML document. It is read as gateways
// write them: tags and text, and nothing of attributes, document types and
// encodings, since the names and numbers that count are ASCII. Package
// encoding/xml does more, in 40 kB of every program with a node.
type document string

// A token is a tag or text.
type token struct {
	kind tokenKind
	text string // characters, or the tag's local name
}

type tokenKind int

const (
	characters tokenKind = iota // text; none between two tags is a token, too
	begin
	end
	empty // an element that begins and ends
)

// sections are what begins with < and is no tag (XML 1.0, sections 2.5 to 2.8).
var sections = []struct{ begin, end string }{
	{cdata, "]]>"},
	{"<!--", "-->"},
	{"<?", "?>"},
	{"<!", ">"},
}

const cdata = "<![CDATA["

// next takes the next token. Of a section that is not text, the text is "".
func (d *document) next() (token, error) {
	rest := string(*d)
	if n := strings.IndexByte(rest, '<'); n != 0 {
		if n < 0 {
			n = len(rest)
		}
		*d = document(rest[n:])
		return token{characters, unescape(rest[:n])}, nil
	}
	for _, s := range sections {
		if !strings.HasPrefix(rest, s.begin) {
			continue
		}
		inner, after, ended := strings.Cut(rest[len(s.begin):], s.end)
		if !ended {
			return token{}, fmt.Errorf("%s without %s", s.begin, s.end)
		}
		*d = document(after)
		if s.begin != cdata {
			inner = ""
		}
		return token{characters, inner}, nil
	}
	return d.tag()
}

// tag takes a tag.
func (d *document) tag() (t token, err error) {
	rest := string(*d)
	n := tagEnd(rest)
	if n < 0 {
		return t, errors.New("a tag does not end")
	}
	inner := rest[1:n]
	*d = document(rest[n+1:])
	switch {
	case strings.HasPrefix(inner, "/"):
		t.kind, inner = end, inner[1:]
	case strings.HasSuffix(inner, "/"):
		t.kind, inner = empty, inner[:len(inner)-1]
	default:
		t.kind = begin
	}
	if n := strings.IndexAny(inner, " \t\r\n"); n >= 0 {
		inner = inner[:n]
	}
	if space, local, ok := strings.Cut(inner, ":"); ok && space != "" && local != "" {
		inner = local
	}
	if t.text = inner; inner == "" {
		return t, errors.New("a tag has no name")
	}
	return t, nil
}

// tagEnd returns where the tag ends that s begins with: at the first > that is in
// no quotes.
func tagEnd(s string) int {
	quote := byte(0)
	for i := range len(s) {
		switch c := s[i]; {
		case c == quote:
			quote = 0
		case quote != 0:
		case c == '"', c == '\'':
			quote = c
		case c == '>':
			return i
		}
	}
	return -1
}

// maxReference bounds a reference to a character, without & and ;, in bytes.
const maxReference = 8

// unescape puts in the characters that references stand for (XML 1.0, sections
// 4.1 and 4.6). What is none stays as it is: URLs come with & as it is.
func unescape(s string) string {
	if !strings.Contains(s, "&") {
		return s
	}
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, "&")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		name, _, ended := strings.Cut(after[:min(len(after), maxReference+1)], ";")
		if c := referred(name); ended && c != utf8.RuneError {
			b.WriteRune(c)
			s = after[len(name)+1:]
			continue
		}
		b.WriteByte('&')
		s = after
	}
}

// referred returns the character that a reference names, utf8.RuneError when none.
func referred(name string) rune {
	switch name {
	case "amp":
		return '&'
	case "lt":
		return '<'
	case "gt":
		return '>'
	case "quot":
		return '"'
	case "apos":
		return '\''
	}
	number, ok := strings.CutPrefix(name, "#")
	if !ok {
		return utf8.RuneError
	}
	base := 10
	if hex, ok := strings.CutPrefix(number, "x"); ok {
		number, base = hex, 16
	}
	n, err := strconv.ParseUint(number, base, 31)
	if err != nil || !utf8.ValidRune(rune(n)) {
		return utf8.RuneError
	}
	return rune(n)
}
