package settings

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"github.com/tailscale/hujson"
)

// MaxFile bounds a configuration file, in bytes.
const MaxFile = 1 << 20

// maxNesting bounds the brackets within brackets of a file; what is read has two.
const maxNesting = 16

// A fileReader sets in a target what a configuration file says.
type fileReader struct {
	name string // of the file, for errors
	text []byte
	into *target
	errs []error
	seen map[string]bool
}

// readFile sets what a HuJSON file says: an object with the names of settings as
// keys. It returns everything that is wrong with the file, each with its place.
func readFile(name string, text []byte, into *target) error {
	r := &fileReader{name: name, text: text, into: into, seen: make(map[string]bool)}
	if len(text) > MaxFile {
		return fmt.Errorf("%s: more than %d bytes", name, MaxFile)
	}
	if at := tooDeep(text); at >= 0 {
		return r.errorf(at, "more than %d brackets within one another", maxNesting)
	}
	v, err := hujson.Parse(bytes.Clone(text))
	if err != nil {
		return fmt.Errorf("%s:%s", name, placed(err.Error()))
	}
	o, ok := v.Value.(*hujson.Object)
	if !ok {
		return r.errorf(v.StartOffset, `want an object, as in {"hostname": "web"}`)
	}
	for _, m := range o.Members {
		r.member(m)
	}
	return errors.Join(r.errs...)
}

// tooDeep returns where brackets are nested deeper than maxNesting; -1: nowhere.
// The parser calls itself for each, so that a file of nothing else could exhaust
// the stack. Brackets in texts and comments count, too, which no sane file
// notices.
func tooDeep(text []byte) int {
	depth := 0
	for i, c := range text {
		switch c {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		if depth > maxNesting {
			return i
		}
	}
	return -1
}

// placed makes "3:5: what" of the parser's "hujson: line 3, column 5: what".
func placed(text string) string {
	var line, column int
	if n, err := fmt.Sscanf(text, "hujson: line %d, column %d:", &line, &column); n != 2 || err != nil {
		return " " + text
	}
	_, what, _ := strings.Cut(strings.TrimPrefix(text, "hujson: "), ": ")
	return fmt.Sprintf("%d:%d: %s", line, column, what)
}

// place is the file, line and column of an offset in bytes.
func (r *fileReader) place(offset int) string {
	before := r.text[:offset]
	line := 1 + bytes.Count(before, []byte("\n"))
	column := offset - bytes.LastIndexByte(before, '\n')
	return fmt.Sprintf("%s:%d:%d", r.name, line, column)
}

func (r *fileReader) errorf(offset int, format string, args ...any) error {
	return fmt.Errorf("%s: %w", r.place(offset), fmt.Errorf(format, args...))
}

func (r *fileReader) fail(offset int, format string, args ...any) {
	r.errs = append(r.errs, r.errorf(offset, format, args...))
}

// member sets what one key says.
func (r *fileReader) member(m hujson.ObjectMember) {
	key := literalText(m.Name)
	flag, known := r.into.inFile(key)
	switch {
	case !known:
		r.fail(m.Name.StartOffset, "unknown key %q%s", key, r.into.suggestion(key))
		return
	case r.seen[key]:
		r.fail(m.Name.StartOffset, "%q is there twice", key)
		return
	}
	r.seen[key] = true
	if r.value(key, flag, m.Value) {
		r.into.settings.from[key] = r.place(m.Name.StartOffset)
	}
}

// value sets a setting, and reports whether the file's value was fit for it.
func (r *fileReader) value(key string, flag pflag.Value, v hujson.Value) bool {
	array, isArray := v.Value.(*hujson.Array)
	switch {
	case isArray && slices.Contains([]string{kindList, kindRoutes, kindProxies}, flag.Type()):
		return r.list(key, flag, array)
	case isArray || !wants[flag.Type()].takes(v.Value.Kind()):
		r.fail(v.StartOffset, "%q: want %s, not %s", key, wants[flag.Type()].words, kindWords(v.Value.Kind()))
		return false
	}
	if err := flag.Set(literalText(v)); err != nil {
		r.fail(v.StartOffset, "%q: %w", key, err)
		return false
	}
	return true
}

// list sets a setting that takes several texts.
func (r *fileReader) list(key string, flag pflag.Value, array *hujson.Array) bool {
	texts, ok := r.texts(key, array)
	if !ok {
		return false
	}
	slice, ok := flag.(pflag.SliceValue)
	if !ok {
		return r.joined(key, flag, array, texts)
	}
	if slice.Replace(nil) != nil {
		return false
	}
	for i, t := range texts {
		if err := slice.Append(t); err != nil {
			r.fail(array.Elements[i].StartOffset, "%q: %w", key, err)
			ok = false
		}
	}
	return ok
}

// joined sets a setting that takes several texts as one, apart by commas.
func (r *fileReader) joined(key string, flag pflag.Value, array *hujson.Array, texts []string) bool {
	if len(texts) == 0 {
		return flag.Set("false") == nil
	}
	if err := flag.Set(strings.Join(texts, ",")); err != nil {
		r.fail(array.Elements[0].StartOffset, "%q: %w", key, err)
		return false
	}
	return true
}

// texts returns the elements of a list of strings.
func (r *fileReader) texts(key string, array *hujson.Array) (texts []string, ok bool) {
	ok = true
	for _, e := range array.Elements {
		if e.Value.Kind() != '"' {
			r.fail(e.StartOffset, "%q: want a list of strings, but it holds %s", key, kindWords(e.Value.Kind()))
			ok = false
		}
		texts = append(texts, literalText(e))
	}
	return texts, ok
}

// literalText is a text without quotes, or any other literal as it stands.
func literalText(v hujson.Value) string {
	l, ok := v.Value.(hujson.Literal)
	if !ok {
		return ""
	}
	if l.Kind() == '"' {
		return l.String()
	}
	return string(l)
}

// A want is what the file must hold for a kind of value.
type want struct {
	kinds string // as hujson's Kind: a quote, 0, t, f
	words string
}

func (w want) takes(k hujson.Kind) bool { return strings.IndexByte(w.kinds, byte(k)) >= 0 }

// wants has a want for each kind of value; lists are apart.
var wants = map[string]want{
	kindText:     {`"`, "a string"},
	kindSwitch:   {"tf", "true or false"},
	kindPort:     {"0", "a number"},
	kindDuration: {`"`, `a string such as "10s"`},
	kindSize:     {`0"`, `a number or a string such as "64MiB"`},
	kindList:     {"", "a list of strings"},
	kindRoutes:   {"tf", "true, false or a list of strings"},
	kindProxies:  {`"`, "a string or a list of strings"},
}

// kindWords is what a value of a file is, for people.
func kindWords(k hujson.Kind) string {
	switch k {
	case '"':
		return "a string"
	case '0':
		return "a number"
	case 't', 'f':
		return "true or false"
	case '[':
		return "a list"
	case '{':
		return "an object"
	}
	return "null"
}
