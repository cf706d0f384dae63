package wire

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// TestGeneratedFromSchema: the generated code is that of vpn.proto as it is. If it
// is not, run go generate.
func TestGeneratedFromSchema(t *testing.T) {
	b, err := os.ReadFile("../../vpn.proto")
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`//.*`).ReplaceAllString(string(b), "")
	text = text[strings.Index(text, "message "):]
	want := words(text)
	var p printer
	for i := range File_vpn_proto.Messages().Len() {
		p.message(File_vpn_proto.Messages().Get(i))
	}
	got := words(p.String())
	for i := range max(len(want), len(got)) {
		if i >= len(want) || i >= len(got) || want[i] != got[i] {
			t.Fatalf("word %d differs: vpn.proto goes on with %q, the generated code with %q", i, want[i:min(i+8, len(want))], got[i:min(i+8, len(got))])
		}
	}
}

// words are the words and signs of a schema.
func words(text string) []string {
	return regexp.MustCompile(`[\w.]+|[^\w\s.]`).FindAllString(text, -1)
}

// A printer writes the schema that descriptors describe, as vpn.proto has it:
// what is inside of a message first, then its fields in order.
type printer struct{ strings.Builder }

func (p *printer) message(m protoreflect.MessageDescriptor) {
	fmt.Fprintf(p, "message %s {\n", m.Name())
	for i := range m.Enums().Len() {
		p.enum(m.Enums().Get(i))
	}
	for i := range m.Messages().Len() {
		p.message(m.Messages().Get(i))
	}
	var oneof protoreflect.OneofDescriptor
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		if o := f.ContainingOneof(); o != oneof {
			if oneof != nil {
				fmt.Fprintln(p, "}")
			}
			if oneof = o; o != nil {
				fmt.Fprintf(p, "oneof %s {\n", o.Name())
			}
		}
		p.field(f)
	}
	if oneof != nil {
		fmt.Fprintln(p, "}")
	}
	fmt.Fprintln(p, "}")
}

func (p *printer) enum(e protoreflect.EnumDescriptor) {
	fmt.Fprintf(p, "enum %s {\n", e.Name())
	for i := range e.Values().Len() {
		v := e.Values().Get(i)
		fmt.Fprintf(p, "%s = %d;\n", v.Name(), v.Number())
	}
	fmt.Fprintln(p, "}")
}

func (p *printer) field(f protoreflect.FieldDescriptor) {
	if f.IsList() {
		fmt.Fprint(p, "repeated ")
	}
	fmt.Fprintf(p, "%s %s = %d;\n", typeOf(f), f.Name(), f.Number())
}

// typeOf is the type of a field; one of another package with its package.
func typeOf(f protoreflect.FieldDescriptor) string {
	var d protoreflect.Descriptor
	switch {
	case f.Message() != nil:
		d = f.Message()
	case f.Enum() != nil:
		d = f.Enum()
	default:
		return f.Kind().String()
	}
	if d.ParentFile().Package() != File_vpn_proto.Package() {
		return string(d.FullName())
	}
	return string(d.Name())
}
