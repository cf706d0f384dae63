package proxy

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestParseLocal(t *testing.T) {
	for text, want := range map[string]Spec{
		"8080:web:80":                   {Listen: "localhost:8080", Target: "web:80"},
		"0:web:80":                      {Listen: "localhost:0", Target: "web:80"},
		"0.0.0.0:8080:web:80":           {Listen: "0.0.0.0:8080", Target: "web:80"},
		"*:8080:web:80":                 {Listen: ":8080", Target: "web:80"},
		":8080:web:80":                  {Listen: ":8080", Target: "web:80"},
		"[::1]:8080:[fd7a::1]:80":       {Listen: "[::1]:8080", Target: "[fd7a::1]:80"},
		"8080:[fd7a:115c:a1e0::]:22":    {Listen: "localhost:8080", Target: "[fd7a:115c:a1e0::]:22"},
		"5353:dns:53/udp":               {Network: "udp", Listen: "127.0.0.1:5353", Target: "dns:53"},
		"8080:web:80/tcp":               {Listen: "localhost:8080", Target: "web:80"},
		"unix:/run/web.sock:web:80":     {Listen: "unix:/run/web.sock", Target: "web:80"},
		"/run/web.sock:web:80":          {Listen: "unix:/run/web.sock", Target: "web:80"},
		"unix:@web:web:80":              {Listen: "unix:@web", Target: "web:80"},
		"[unix:/run/a:b,c]:web:80":      {Listen: "unix:/run/a:b,c", Target: "web:80"},
		"8080:web:80,proxy=v2,max=5":    {Listen: "localhost:8080", Target: "web:80", Options: Options{SendProxy: 2, MaxConns: 5}},
		"unix:/s:web:80,mode=660":       {Listen: "unix:/s", Target: "web:80", Options: Options{Mode: 0o660}},
		"53:dns:53/udp,idle=5s":         {Network: "udp", Listen: "127.0.0.1:53", Target: "dns:53", Options: Options{Idle: 5 * time.Second}},
		"8080:web:80,max-per-source=16": {Listen: "localhost:8080", Target: "web:80", Options: Options{MaxPerSource: 16}},
	} {
		want.Kind = Local
		if want.Network == "" {
			want.Network = "tcp"
		}
		if got, err := ParseLocal(text); err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("ParseLocal(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
}

func TestParseRemote(t *testing.T) {
	for text, want := range map[string]Spec{
		"80:localhost:3000":            {Listen: ":80", Target: "localhost:3000"},
		"100.64.0.7:80:localhost:3000": {Listen: "100.64.0.7:80", Target: "localhost:3000"},
		"*:80:[::1]:3000":              {Listen: ":80", Target: "[::1]:3000"},
		"80:unix:/run/app.sock":        {Listen: ":80", Target: "unix:/run/app.sock"},
		"80:unix:/run/app/udp":         {Listen: ":80", Target: "unix:/run/app/udp"},
		"[fd7a::1]:80:unix:/run/app":   {Listen: "[fd7a::1]:80", Target: "unix:/run/app"},
		"53:localhost:53/udp":          {Network: "udp", Listen: ":53", Target: "localhost:53"},
		"80:localhost:80,http":         {Listen: ":80", Target: "localhost:80", Options: Options{Identity: true}},
		"80:localhost:80,accept-proxy": {Listen: ":80", Target: "localhost:80", Options: Options{AcceptProxy: true}},
		"80:unix:/run/app,proxy=v1":    {Listen: ":80", Target: "unix:/run/app", Options: Options{SendProxy: 1}},
	} {
		want.Kind = Remote
		if want.Network == "" {
			want.Network = "tcp"
		}
		if got, err := ParseRemote(text); err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("ParseRemote(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
}

func TestParseProxy(t *testing.T) {
	for text, want := range map[string]string{
		"1080": "localhost:1080", "localhost:1080": "localhost:1080", ":1055": ":1055", "*:1055": ":1055",
		"[::1]:1080": "[::1]:1080", "unix:/run/socks": "unix:/run/socks", "0": "localhost:0",
	} {
		if got, err := ParseProxy(SOCKS, text); err != nil || got.Listen != want || got.Kind != SOCKS || got.Target != "" {
			t.Errorf("ParseProxy(%q) = %+v, %v; want to listen on %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "1080-1090", "a:b:c", "1080/udp", "1080,http", "x"} {
		if got, err := ParseProxy(HTTP, text); err == nil {
			t.Errorf("%q gave %v", text, got)
		}
	}
}

// Each port of a range is a forward of its own.
func TestParseRange(t *testing.T) {
	got, err := ParseLocal("8000-8002:web:9000-9002/udp")
	if err != nil {
		t.Fatal(err)
	}
	want := "[-L 127.0.0.1:8000:web:9000/udp -L 127.0.0.1:8001:web:9001/udp -L 127.0.0.1:8002:web:9002/udp]"
	if fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// badSpecs says what is wrong in a piece of text, and a word of the error.
var badSpecs = map[string]string{
	"": "want", "80": "want", "80:web": "want", "80:web:80:x:y": "want", "web:80": "want",
	"x:web:80": "port number", "80:web:x": "port number", "80:web:0": "port number", "80:web:65536": "port number",
	"80::80": "host", "80:[::1:80": "brackets", "80:[::1]x:80": "brackets", "80:[::1]/udp:80": "colon",
	"80-90:web:80": "same length", "80-90:web:80-91": "same length", "90-80:web:90-80": "lower", "1-2000:web:1-2000": "1024",
	"80:web:80/sctp": "/udp", "unix:run:web:80": "path", "unix::web:80": "path",
	"80:web:80,": "no option", "80:web:80,fast": "no option", "80:web:80,proxy": "proxy=v1", "80:web:80,proxy=v3": "proxy=v1",
	"80:web:80,max=0": "number", "80:web:80,max=x": "number", "80:web:80,accept-proxy=1": "no value",
	"80:web:80,mode=660": "unix socket", "unix:/s:web:80,mode=999": "permissions", "unix:/s:web:80,mode=0": "permissions",
	"80:web:80,idle=5s": "UDP", "80:web:80/udp,idle=x": "idle", "80:web:80/udp,proxy=v1": "TCP",
}

func TestParseRefusesAndNamesTheInput(t *testing.T) {
	parse := map[string]func(string) ([]Spec, error){"-L": ParseLocal, "-R": ParseRemote}
	for flag, f := range parse {
		for text, word := range badSpecs {
			checkRefused(t, f, flag, text, word)
		}
	}
	checkRefused(t, ParseLocal, "-L", "80:unix:/run/app", "want")
	checkRefused(t, ParseLocal, "-L", "127.0.0.1:80:unix:/run/app:80", "host and port")
	checkRefused(t, ParseLocal, "-L", "80:web:80,http", "-R")
	checkRefused(t, ParseLocal, "-L", "unix:/run/app:web:80/udp", "no UDP")
	checkRefused(t, ParseLocal, "-L", "unix:@app:web:80,mode=660", "has a path")
	checkRefused(t, ParseRemote, "-R", "80:localhost:80,http,proxy=v1", "needs no")
	checkRefused(t, ParseRemote, "-R", "unix:/run/app:localhost:80", "host and port")
}

func checkRefused(t *testing.T, parse func(string) ([]Spec, error), flag, text, word string) {
	t.Helper()
	switch got, err := parse(text); {
	case err == nil:
		t.Errorf("%s %q gave %v", flag, text, got)
	case !strings.HasPrefix(err.Error(), fmt.Sprintf("%s %q: ", flag, text)) || !strings.Contains(err.Error(), word):
		t.Errorf("%s %q: error %q does not name it or say %q", flag, text, err, word)
	}
}

// What is parsed is written such that it parses to the same.
func FuzzParse(f *testing.F) {
	for text := range badSpecs {
		f.Add(text)
	}
	for _, text := range []string{
		"[::1]:8080:[fd7a::1]:80", "80:localhost:3000", "8000-8003:web:9000-9003/udp,idle=5s,max=7",
		"unix:/run/x:web:80,proxy=v2,accept-proxy", "[unix:/a:b]:web:80,mode=0666", "80:unix:/run/x,max-per-source=3", "1080", "80:localhost:80,http",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		local, _ := ParseLocal(text)
		remote, _ := ParseRemote(text)
		for _, s := range append(local, remote...) {
			again := map[Kind]func(string) ([]Spec, error){Local: ParseLocal, Remote: ParseRemote}[s.Kind]
			if got, err := again(s.text()); err != nil || len(got) != 1 || got[0] != s {
				t.Errorf("%q gave %v, which reads as %v, %v", text, s, got, err)
			}
		}
		if s, err := ParseProxy(SOCKS, text); err == nil {
			if got, err := ParseProxy(SOCKS, s.text()); err != nil || got != s {
				t.Errorf("%q gave %v, which reads as %v, %v", text, s, got, err)
			}
		}
	})
}
