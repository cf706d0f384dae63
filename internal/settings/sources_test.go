package settings

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

const everything = Node | Route | Serve

// read reads a file, an environment and a command line together.
func read(t *testing.T, file string, environ []string, args ...string) (*Settings, error) {
	t.Helper()
	f := pflag.NewFlagSet("run", pflag.ContinueOnError)
	AddFlags(f, everything)
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	return Sources{Name: "file", File: []byte(file), Environ: environ, Flags: f, Groups: everything}.Read()
}

func mustRead(t *testing.T, file string, environ []string, args ...string) *Settings {
	t.Helper()
	s, err := read(t, file, environ, args...)
	if err != nil {
		t.Fatalf("%q %q %q: %v", file, environ, args, err)
	}
	return s
}

// The environment beats the file, and flags beat the environment, for a setting of
// each kind.
func TestWhatWins(t *testing.T) {
	file := `{
		// comments and commas at the end are fine
		"hostname": "from-file", "port": 1, "shields-up": true, "memory-limit": "16MiB",
		"local": ["1:file:1", "2:file:2"], "advertise-routes": ["10.1.0.0/16"],
		"accept-routes": ["router", "10.0.0.0/8"], "drain": "1s", "socks5": "1081",
	}`
	environ := []string{
		"TS_HOSTNAME=from-env", "TSNODE_PORT=2", "TSNODE_SHIELDS_UP=false", "TSNODE_MEMORY_LIMIT=32MiB", "TSNODE_LOCAL=3:env:3 4:env:4",
		"TS_ROUTES=10.2.0.0/16,10.3.0.0/16", "TSNODE_ACCEPT_ROUTES=false", "TSNODE_DRAIN=2s", "TS_SOCKS5_SERVER=localhost:1082",
	}
	args := []string{
		"--hostname", "from-flag", "--port", "3", "--shields-up", "--memory-limit", "64MiB", "-L", "5:flag:5", "--advertise-routes", "10.4.0.0/16",
		"--accept-routes=other", "--drain", "3s", "-D", "[::1]:1083",
	}
	type picked struct {
		hostname string
		port     uint16
		shields  bool
		memory   int64
		local    string
		routes   int
		accept   string
		drain    time.Duration
		socks    string
		from     string
	}
	pick := func(s *Settings) picked {
		return picked{s.Hostname, s.Port, s.ShieldsUp, s.MemoryLimit, strings.Join(s.Local, " "), len(s.AdvertiseRoutes), strings.Join(s.AcceptRoutesFrom, " "), s.Drain, strings.Join(s.SOCKS5, " "), s.From("hostname")}
	}
	for _, test := range []struct {
		name string
		got  *Settings
		want picked
	}{
		{"nothing", mustRead(t, "", nil), picked{drain: 10 * time.Second}},
		{"file", mustRead(t, file, nil), picked{"from-file", 1, true, 16 << 20, "1:file:1 2:file:2", 1, "router 10.0.0.0/8", time.Second, "1081", "file:3:3"}},
		{"environment", mustRead(t, file, environ), picked{"from-env", 2, false, 32 << 20, "3:env:3 4:env:4", 2, "", 2 * time.Second, "localhost:1082", "TS_HOSTNAME"}},
		{"flags", mustRead(t, file, environ, args...), picked{"from-flag", 3, true, 64 << 20, "5:flag:5", 1, "other", 3 * time.Second, "[::1]:1083", "--hostname"}},
	} {
		if got := pick(test.got); got != test.want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", test.name, got, test.want)
		}
	}
}

// Each setting can be said in the file, in the environment and by a flag, and all
// three make the same of it.
func TestEverySettingFromEverywhere(t *testing.T) {
	says := map[string]struct{ flag, file string }{
		kindText: {"x", `"x"`}, kindSwitch: {"true", "true"}, kindPort: {"7", "7"}, kindDuration: {"7s", `"7s"`},
		kindRoutes: {"10.0.0.0/8,a", `["10.0.0.0/8", "a"]`},
	}
	own := map[string]string{ // of those that do not take any text
		"local": "1:a:1", "remote": "1:a:1", "socks5": "127.0.0.1:1", "http-proxy": "127.0.0.1:1", "health": "127.0.0.1:1", "metrics": "127.0.0.1:1",
		"login-server": "https://x", "memory-limit": "16MiB",
		"log-format": "json", "stdio": "a:1", "advertise-tags": "tag:a", "advertise-routes": "10.0.0.0/8", "proxy-allow": "a:1",
	}
	for _, s := range Table() {
		say := says[s.value(Defaults()).Type()]
		if s.Name == "ephemeral" {
			say.flag, say.file = "false", "false" // true is what follows from keys in memory
		}
		if text, ok := own[s.Name]; ok {
			say.flag, say.file = text, `"`+text+`"`
			if s.value(Defaults()).Type() == kindList {
				say.file = "[" + say.file + "]"
			}
		}
		byFlag := s.value(mustRead(t, "", nil, "--"+s.Name+"="+say.flag)).String()
		if byFlag == s.value(mustRead(t, "", nil)).String() && s.Name != "accept-dns" {
			t.Errorf("--%s=%s changes nothing", s.Name, say.flag)
		}
		if s.flagOnly {
			continue
		}
		if got := s.value(mustRead(t, `{"`+s.Name+`": `+say.file+`}`, nil)).String(); got != byFlag {
			t.Errorf("%s: %q by the file, %q by the flag", s.Name, got, byFlag)
		}
		if got := s.value(mustRead(t, "", []string{s.Env + "=" + say.flag})).String(); got != byFlag {
			t.Errorf("%s=%s: %q, %q by the flag", s.Env, say.flag, got, byFlag)
		}
	}
}

// A node whose keys are in memory is ephemeral unless it is told not to be, and
// then there is a warning (SVC-139, SVC-141).
func TestEphemeralFollowsState(t *testing.T) {
	for _, test := range []struct {
		environ, args []string
		want          bool
		warns         bool
	}{
		{nil, nil, true, false},
		{nil, []string{"--state-dir", "x"}, false, false},
		{nil, []string{"--state", "x"}, false, false},
		{nil, []string{"--state", "mem:"}, true, false},
		{nil, []string{"--ephemeral=false"}, false, true},
		{nil, []string{"--ephemeral", "--state-dir", "x"}, true, false},
		{[]string{"TS_KUBE_SECRET=x"}, nil, false, false},
	} {
		s := mustRead(t, "", test.environ, test.args...)
		if s.Ephemeral != test.want || (len(s.Warnings) > 0) != test.warns {
			t.Errorf("%q %q: ephemeral %v, warnings %q", test.environ, test.args, s.Ephemeral, s.Warnings)
		}
	}
}

// Whatever is wrong is told at once, each with its place: file, variable or flag.
func TestAllThatIsWrongIsTold(t *testing.T) {
	file := `{
		"hostname": "x y",
		"exit-node": "gateway",
	}`
	_, err := read(t, file, []string{"TSNODE_LOGIN_SERVER=foo", "TS_KUBE_SECRET=Foo_Bar"},
		"-D", ":1080", "--memory-limit", "1MiB", "--advertise-routes", "10.0.0.1/8", "--advertise-exit-node", "--port", "x", "-L", "8080:web")
	if err == nil {
		t.Fatal("all is taken")
	}
	for _, want := range []string{
		`file:2:15: "hostname": hostname "x y": want at most 63 letters`,
		`TSNODE_LOGIN_SERVER: control URL "foo": want https://HOST`,
		`TS_KUBE_SECRET: "Foo_Bar" cannot be the name of a Secret`,
		`--memory-limit "1MiB": memory limit of 1048576 bytes: want at least`,
		`--advertise-routes "10.0.0.1/8": advertised routes: 10.0.0.1/8 has bits set behind its prefix: want 10.0.0.0/8`,
		`--port "x": want a port number`,
		`--local: -L "8080:web": want [bind:]port`,
		"--socks5: -D *:1080: others on the network could use this proxy",
		`file:3:3 and --advertise-exit-node: a node cannot be an exit node and use one`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("lacks %s", want)
		}
	}
	if t.Failed() {
		t.Log(err)
	}
}

// Two forwards for one port are refused, with the places of both; what is one, or
// left out, is not.
func TestForwardsForOnePort(t *testing.T) {
	for _, test := range []struct {
		file string
		args []string
		want string
	}{
		{`{"remote": ["80:a:1", "80:b:2"]}`, nil, "file:1:2: -R *:80:a:1 and -R *:80:b:2 are for the same port"},
		{`{"local": ["1080:a:1"]}`, []string{"-D", "1080"}, "file:1:2 and --socks5: -L localhost:1080:a:1 and -D localhost:1080 are for the same port"},
		{"", []string{"-R", "80:a:1", "-R", "79-81:b:79-81"}, "--remote: -R *:80:a:1 and -R *:80:b:80 are"},
		{`{"socks5": "1080", "http-proxy": "1080", "local": ["0:a:1", "0:b:1"]}`, []string{"-R", "1080:a:1"}, ""},
		{`{"remote": ["80:a:1", "80:b:2"]}`, []string{"-W", "web:22"}, ""},
	} {
		_, err := read(t, test.file, nil, test.args...)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.HasPrefix(err.Error(), test.want)) {
			t.Errorf("%s %q: %v, want %q", test.file, test.args, err, test.want)
		}
	}
}

func TestAuthKeyAlias(t *testing.T) {
	if s := mustRead(t, "", []string{"TS_AUTHKEY=environment"}, "--authkey", "flag"); s.AuthKey != "flag" {
		t.Errorf("auth key %q", s.AuthKey)
	}
	if _, err := read(t, "", nil, "-W", "web:22", "--auth-key", "-"); err == nil || !strings.Contains(err.Error(), "file:PATH") {
		t.Errorf("standard input for two things: %v", err)
	}
}

// A command that has not all settings takes no notice of the others.
func TestGroups(t *testing.T) {
	f := pflag.NewFlagSet("ping", pflag.ContinueOnError)
	AddFlags(f, Node)
	if f.Lookup("local") != nil || f.Lookup("hostname") == nil {
		t.Error("flags of another group")
	}
	s, err := Sources{Environ: []string{"TS_HOSTNAME=x", "TS_ROUTES=10.0.0.0/8", "TS_SOCKS5_SERVER=:1"}, Flags: f, Groups: Node}.Read()
	if err != nil || s.Hostname != "x" || len(s.AdvertiseRoutes) > 0 || len(s.SOCKS5) > 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "67108864": 64 << 20, "64MiB": 64 << 20, "64 MiB": 64 << 20, "64MB": 64e6, "1.5GiB": 3 << 29,
		"2GB": 2e9, "16KiB": 16 << 10, "16kB": 16e3, "12B": 12,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "64Mi", "1e30", "NaN", "64 MiB MiB", "Inf"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q is taken for %d", text, got)
		}
	}
}

func TestParseListen(t *testing.T) {
	for _, text := range []string{"", ":9002", "[::1]:0", "127.0.0.1:9002"} {
		if got, err := parseListen(text); err != nil || got != text {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"x", "9002", "1.2.3.4", "1.2.3.4:x", "1.2.3.4:70000", "a:b:c"} {
		if got, err := parseListen(text); err == nil {
			t.Errorf("%q is taken for %q", text, got)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"hostname", "local", "remote", "advertise-routes"}
	for name, want := range map[string]string{
		"hostnam": "hostname", "host-name": "hostname", "lcoal": "local", "remoet": "remote", "advertise-route": "advertise-routes", "xyz": "", "": "",
	} {
		if got := nearest(name, names); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
	if !slices.Equal([]int{distance("", "abc"), distance("kitten", "sitting"), distance("same", "same")}, []int{3, 3, 0}) {
		t.Error("wrong distances")
	}
}
