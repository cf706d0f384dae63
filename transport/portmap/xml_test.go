package portmap

import (
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// texts returns what eachText tells, one line for each call.
func texts(doc string) (lines []string, err error) {
	err = eachText(strings.NewReader(doc), func(path []string, text string) {
		lines = append(lines, fmt.Sprintf("%s=%q", strings.Join(path, "/"), text))
	})
	return lines, err
}

func TestDocumentsAsGatewaysWriteThem(t *testing.T) {
	for _, c := range []struct {
		doc  string
		want []string
	}{
		{"<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\r\n<a>\r\n <b> 1 </b><b>2</b>\n</a>\n", []string{`a/b="1"`, `a/b="2"`}},
		{`<s:Envelope xmlns:s="u>v" a='"/>'><s:Body><u:Reply/></s:Body></s:Envelope >`, []string{`Envelope/Body/Reply=""`}},
		{`<a><!-- > <b>no</b> -->x<![CDATA[<y&amp;>]]>z</a>`, []string{`a="x<y&amp;>z"`}},
		{`<!DOCTYPE a [<!ELEMENT a (b)>]><a>1</a>`, []string{`a="1"`}},
		{`<a>/c?x=1&amp;y=2&z=3&#38;&#x26;&lt;&gt;&quot;&apos;&nbsp;&#0x;&#xD800;&</a>`, []string{`a="/c?x=1&y=2&z=3&&<>\"'&nbsp;&#0x;&#xD800;&"`}},
		{"<a>b\xff</a>", []string{`a="b\xff"`}},
		{"<a:>1</a:><:b/>", []string{`a:="1"`, `:b=""`}},
		{"no markup at all & no end", nil},
		{"<a><b>1</b>", []string{`a/b="1"`}},
	} {
		if got, err := texts(c.doc); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, %v, want %q", c.doc, got, err, c.want)
		}
	}
}

func TestDocumentsThatEndEarly(t *testing.T) {
	for _, doc := range []string{
		"<a>1</a><", "<a>1</a><b", `<a>1</a><b c=">`, "<a>1</a><!--", "<a>1</a><!-->", "<a>1</a><?", "<a>1</a><![CDATA[]]",
		"<a>1</a></b>", "<a>1</a><>", "<a>1</a></>", "<a>1</a>< b>", "<a>1</a>" + strings.Repeat("<b>", maxDepth+1),
	} {
		if got, err := texts(doc); err == nil || !slices.Equal(got, []string{`a="1"`}) {
			t.Errorf("%s: got %q, %v, want the element before the error", doc, got, err)
		}
	}
}

// TestLongTextsAreLeftOut: PATH-103's documents come from whoever answers.
func TestLongTextsAreLeftOut(t *testing.T) {
	got, err := texts("<a>" + strings.Repeat("x", maxText+1) + "</a>")
	if err != nil || !slices.Equal(got, []string{`a=""`}) {
		t.Errorf("got %d texts, %v", len(got), err)
	}
}

// textsOf is eachText by package encoding/xml; ok is false for what is not XML.
func textsOf(doc string) (lines []string, ok bool) {
	d := xml.NewDecoder(strings.NewReader(doc))
	d.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	var path []string
	var text string
	leaf := false
	for {
		t, err := d.RawToken()
		if err != nil {
			return lines, err == io.EOF
		}
		switch t := t.(type) {
		case xml.StartElement:
			path, text, leaf = append(path, t.Name.Local), "", true
		case xml.CharData:
			text += string(t)
		case xml.EndElement:
			if len(path) == 0 {
				return nil, false
			}
			if leaf {
				lines = append(lines, fmt.Sprintf("%s=%q", strings.Join(path, "/"), strings.TrimSpace(text)))
			}
			path, leaf = path[:len(path)-1], false
		case xml.Directive:
			return nil, false // we look for no quotes in it
		}
		if len(path) > maxDepth || len(text) > maxText {
			return nil, false
		}
	}
}

// FuzzXML: what is XML is read as package encoding/xml reads it.
func FuzzXML(f *testing.F) {
	files, err := filepath.Glob("testdata/*.xml")
	if err != nil || len(files) == 0 {
		f.Fatalf("no documents: %v", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Add(`<a b="c>" d='"'><e:f/><g>1&amp;&#50;&#x33;</g><!-- --><h><![CDATA[<]]>4</h ></a>`)
	f.Fuzz(func(t *testing.T, doc string) {
		got, err := texts(doc)
		want, ok := textsOf(doc)
		if !ok || strings.ContainsAny(doc, "\r\ufffd") || strings.Contains(doc, "&#0") || strings.Contains(doc, "&#x0") {
			return // ends of lines, and numbers of no characters, are left as they are
		}
		if slices.ContainsFunc(want, func(line string) bool { return strings.Contains(line, "\ufffd") }) {
			return
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %q, %v, want %q", doc, got, err, want)
		}
	})
}
