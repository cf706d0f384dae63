package settings

import (
	"strings"
	"testing"
)

// There may be several proxies of a kind, as of ssh's -D; a file may have one as a
// string, and options may follow each.
func TestSeveralProxies(t *testing.T) {
	for _, test := range []struct {
		name, file string
		environ    []string
		args       []string
		want       string
	}{
		{"flags", "", nil, []string{"-D", "1080", "-D", "unix:/run/s", "--socks5", "1081,max=5"}, "1080 unix:/run/s 1081,max=5"},
		{"list", `{"socks5": ["1080", "unix:/run/s"]}`, nil, nil, "1080 unix:/run/s"},
		{"string", `{"socks5": "1080,max=5"}`, nil, nil, "1080,max=5"},
		{"environment", "", []string{"TS_SOCKS5_SERVER=:1080  localhost:1081,max=5"}, nil, "localhost:1080 localhost:1081,max=5"},
		{"flag beats list", `{"socks5": ["1080", "1081"]}`, nil, []string{"-D", "1082"}, "1082"},
		{"none beats list", `{"socks5": ["1080", "1081"]}`, nil, []string{"-D", ""}, ""},
		{"none", `{"socks5": ""}`, nil, nil, ""},
	} {
		s := mustRead(t, test.file, test.environ, test.args...)
		if got := strings.Join(s.SOCKS5, " "); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
	if _, err := read(t, `{"http-proxy": ["1080", "x"]}`, nil); err == nil || !strings.HasPrefix(err.Error(), "file:1:25: ") {
		t.Errorf("a bad one among good ones: %v", err)
	}
}

// -W takes host and port, and says that it forwards nothing else (ssh(1):
// ClearAllForwardings).
func TestStdioAddress(t *testing.T) {
	for _, good := range []string{"web:22", "[fd7a:115c:a1e0::1]:22", "100.64.0.1:65535"} {
		if s := mustRead(t, "", nil, "-W", good); s.Stdio != good || strings.Contains(strings.Join(s.Warnings, "\n"), "-W") {
			t.Errorf("%s: %q, warnings %q", good, s.Stdio, s.Warnings)
		}
	}
	for _, bad := range []string{"web", ":22", "web:", "web:0", "web:65536", "web:ssh", "fd7a::1:22"} {
		if _, err := read(t, "", nil, "-W", bad); err == nil || !strings.Contains(err.Error(), "want") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	s := mustRead(t, `{"local": ["1:a:1"]}`, nil, "-W", "web:22")
	if !strings.Contains(strings.Join(s.Warnings, "\n"), "-W forwards nothing else") {
		t.Errorf("warnings %q", s.Warnings)
	}
}
