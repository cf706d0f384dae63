package settings

import (
	"slices"
	"strings"
	"testing"
)

// Of a file that is read again, what can change while the node runs does, and the
// rest is named.
func TestChanges(t *testing.T) {
	old := mustRead(t, `{"hostname": "a", "local": ["1:a:1", "2:b:2"], "port": 1, "accept-routes": ["x", "y"]}`, nil)
	next := mustRead(t, `{"hostname": "b", "local": ["1:a:1"], "port": 2, "accept-routes": ["x", "y"], "socks5": "1080"}`, nil)
	changed := old.Changed(next)
	if !slices.Equal(changed, []string{"hostname", "port", "local", "socks5"}) {
		t.Errorf("changed: %q", changed)
	}
	live, later := Split(changed)
	if !slices.Equal(live, []string{"hostname", "local"}) || !slices.Equal(later, []string{"port", "socks5"}) {
		t.Errorf("live %q, later %q", live, later)
	}
	both, err := old.WithLive(next)
	if err != nil {
		t.Fatal(err)
	}
	if both.Hostname != "b" || len(both.Local) != 1 || both.Port != 1 || len(both.SOCKS5) > 0 || strings.Join(both.AcceptRoutesFrom, " ") != "x y" {
		t.Errorf("%+v", both)
	}
	if again := both.Changed(old); !slices.Equal(again, live) {
		t.Errorf("both differ from the old ones in %q", again)
	}
	if same := next.Changed(next); len(same) > 0 {
		t.Errorf("differ from themselves in %q", same)
	}
}

// What is set can be shown with what has set it, but for secrets.
func TestSaidShowsNoSecret(t *testing.T) {
	s := mustRead(t, `{"hostname": "a", "proxy-auth": "user:hush"}`, []string{"TS_AUTHKEY=hush"}, "--port", "7")
	all := s.Said()
	want := []Said{
		{"hostname", "a", "file:1:2", false}, {"auth-key", "", "TS_AUTHKEY", true}, {"port", "7", "--port", false}, {"proxy-auth", "", "file:1:19", true},
	}
	if !slices.Equal(all, want) {
		t.Errorf("got %+v", all)
	}
}

// A change of the file that something else beats is named: it would be looked for in
// vain.
func TestBeaten(t *testing.T) {
	for _, test := range []struct {
		name, before, after string
		environ             []string
		args                []string
		want                string
	}{
		{"by nothing", `{"hostname": "a"}`, `{"hostname": "b"}`, nil, nil, ""},
		{"by a flag", `{"hostname": "a", "port": 1}`, `{"hostname": "b", "port": 2}`, nil, []string{"--hostname", "c"}, "hostname"},
		{"by the environment", `{"hostname": "a"}`, `{"hostname": "b"}`, []string{"TS_EXTRA_ARGS=--hostname=c"}, nil, "hostname"},
		{"no change", `{"hostname": "a"}`, `{  "hostname": "a"}`, nil, []string{"--hostname", "c"}, ""},
		{"new", `{}`, `{"local": ["1:a:1"]}`, nil, []string{"-L", "2:b:2"}, "local"},
		{"gone", `{"hostname": "a"}`, `{}`, nil, []string{"--hostname", "c"}, "hostname"},
		{"gone, and nothing else", `{"hostname": "a"}`, `{}`, nil, nil, ""},
	} {
		old, next := mustRead(t, test.before, test.environ, test.args...), mustRead(t, test.after, test.environ, test.args...)
		if got := strings.Join(next.Beaten(old), " "); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
		now, err := old.WithLive(next)
		if err != nil {
			t.Fatal(err)
		}
		if again := next.Beaten(now); len(again) > 0 {
			t.Errorf("%s: told again: %q", test.name, again)
		}
	}
}

// A file that has a secret in it is told from one that names where the secret is.
func TestFileHasSecret(t *testing.T) {
	for text, want := range map[string]bool{
		``: false, `{"auth-key": "file:/key"}`: false, `{"auth-key": "-"}`: false, `{"auth-key": "hush"}`: true,
		`{"proxy-auth": "user:hush"}`: true, `{"proxy-auth": "file:/users", "hostname": "a"}`: false,
	} {
		s := mustRead(t, text, []string{"TS_AUTHKEY=other"})
		if got := s.FileHasSecret(); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}
