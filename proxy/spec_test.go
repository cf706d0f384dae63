package proxy

import (
	"strings"
	"testing"
)

func TestParseLocal(t *testing.T) {
	for text, want := range map[string]Spec{
		"8080:web:80":                {"127.0.0.1:8080", "web:80"},
		"0:web:80":                   {"127.0.0.1:0", "web:80"},
		"0.0.0.0:8080:web:80":        {"0.0.0.0:8080", "web:80"},
		"*:8080:web:80":              {":8080", "web:80"},
		":8080:web:80":               {":8080", "web:80"},
		"[::1]:8080:[fd7a::1]:80":    {"[::1]:8080", "[fd7a::1]:80"},
		"8080:[fd7a:115c:a1e0::]:22": {"127.0.0.1:8080", "[fd7a:115c:a1e0::]:22"},
	} {
		if got, err := ParseLocal(text); err != nil || got != want {
			t.Errorf("ParseLocal(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
}

func TestParseRemote(t *testing.T) {
	want := Spec{":80", "localhost:3000"}
	if got, err := ParseRemote("80:localhost:3000"); err != nil || got != want {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
}

func TestParseRefusesAndNamesTheInput(t *testing.T) {
	parse := map[string]func(string) (Spec, error){"local": ParseLocal, "remote": ParseRemote}
	for name, f := range parse {
		for _, text := range []string{"", "80", "80:web", "80:web:80:x:y", "web:80", "x:web:80", "80:web:x", "80:web:0", "80:web:65536", "80::80", "80:[::1:80", "80:[::1]x:80"} {
			_, err := f(text)
			if err == nil {
				t.Errorf("%s %q: no error", name, text)
			} else if !strings.Contains(err.Error(), `"`+text+`"`) {
				t.Errorf("%s %q: error %q does not name it", name, text, err)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("[::1]:8080:[fd7a::1]:80")
	f.Add("80:localhost:3000")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseLocal(text)
		if err == nil && (s.Listen == "" || s.Target == "") {
			t.Errorf("%q gave %+v", text, s)
		}
		ParseRemote(text)
	})
}
