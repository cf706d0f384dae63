package admit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp/relay"
)

// serveController runs an admission controller and returns the check that asks
// it, and what is logged.
func serveController(t *testing.T, failOpen bool, h http.HandlerFunc) (Check, *bytes.Buffer) {
	t.Helper()
	hs := httptest.NewServer(h)
	t.Cleanup(hs.Close)
	var logged bytes.Buffer
	check, err := URL(hs.URL+"/admit", failOpen, hs.Client(), slog.New(slog.NewTextHandler(&logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return check, &logged
}

// TestURLAsks: DERP-74: the question is a POST of the key and the client's
// address, without the port.
func TestURLAsks(t *testing.T) {
	k := key.NewNode().Public()
	for addr, source := range map[string]string{
		"203.0.113.9:1":          "203.0.113.9",
		"[::ffff:203.0.113.9]:1": "203.0.113.9",
		"[2001:db8::9]:1":        "2001:db8::9",
	} {
		check, _ := serveController(t, false, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			want := fmt.Sprintf(`{"NodePublic":"nodekey:%s","Source":"%s"}`, k.Hex(), source)
			if r.Method != http.MethodPost || r.URL.Path != "/admit" || string(body) != want {
				t.Errorf("asked %s %s: %s, want %s", r.Method, r.URL.Path, body, want)
			}
			io.WriteString(w, `{"Allow":true}`)
		})
		wantErr(t, check(t.Context(), relay.Candidate{Key: k, Addr: netip.MustParseAddrPort(addr)}))
	}
}

// answers are those of an admission controller that can be asked. They mean the
// same whether or not the check fails open (DERP-74, DERP-75).
var answers = map[string]struct {
	status int
	body   string
	want   []string // in the error; none: admitted
}{
	"allowed":            {200, `{"Allow":true}`, nil},
	"allowed, with more": {200, `{"Allow":true,"Rate":5}` + "\n{", nil},
	"denied":             {200, `{"Allow":false}`, []string{"not allowed"}},
	"nothing said":       {200, `{}`, []string{"not allowed"}},
	"null":               {200, `null`, []string{"not allowed"}},
	"taken back":         {200, `{"Allow":true,"Allow":null}`, []string{"not allowed"}},
	"empty":              {200, ``, []string{"not understood"}},
	"not JSON":           {200, `yes`, []string{"not understood"}},
	"wrong type":         {200, `{"Allow":"true"}`, []string{"not understood"}},
	"beyond 4 KiB":       {200, `{"x":"` + strings.Repeat("x", 4<<10) + `","Allow":true}`, []string{"not understood"}},
	"up to 4 KiB":        {200, `{"x":"` + strings.Repeat("x", 4<<10-21) + `","Allow":true}`, nil},
	"201":                {201, `{"Allow":true}`, []string{"status 201"}},
	"403":                {403, `{"Allow":true}`, []string{"status 403"}},
	"500":                {500, `{"Allow":true}`, []string{"status 500"}},
}

// TestURLAnswers: only status 200 with Allow true in the first 4 KiB admits
// (DERP-74), also when the check fails open (DERP-75).
func TestURLAnswers(t *testing.T) {
	k := key.NewNode().Public()
	for name, c := range answers {
		for _, failOpen := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/failOpen=%v", name, failOpen), func(t *testing.T) {
				check, logged := serveController(t, failOpen, func(w http.ResponseWriter, _ *http.Request) {
					w.WriteHeader(c.status)
					io.WriteString(w, c.body)
				})
				want := c.want
				if want != nil {
					want = append(want, k.Short())
				}
				wantErr(t, check(t.Context(), candidate(k)), want...)
				if logged.Len() != 0 {
					t.Errorf("logged: %s", logged)
				}
			})
		}
	}
}

// dialing is a client whose connections are made by dial.
func dialing(dial func(context.Context) (net.Conn, error)) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }, DisableKeepAlives: true,
	}}
}

const slowDial = time.Minute // a dial that is longer than anyone waits

// TestURLUnasked: DERP-75: if the request itself fails, the client is refused or
// admitted, as configured, and that is logged; the request takes 5 s at most.
func TestURLUnasked(t *testing.T) {
	for name, c := range map[string]struct {
		url  string
		dial func(context.Context) (net.Conn, error)
		took time.Duration
	}{
		"refused": {"http://a/", func(context.Context) (net.Conn, error) { return nil, errors.New("connection refused") }, 0},
		"no TLS":  {"https://a/", func(context.Context) (net.Conn, error) { return answering("HTTP/1.1 200 OK\r\n\r\n"), nil }, 0},
		"hung up": {"http://a/", func(context.Context) (net.Conn, error) { return answering(""), nil }, 0},
		"dialing hangs": {"http://a/", func(context.Context) (net.Conn, error) {
			time.Sleep(slowDial) // fake time
			return nil, errors.New("timed out")
		}, 5 * time.Second},
	} {
		for _, failOpen := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/failOpen=%v", name, failOpen), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var logged bytes.Buffer
					check, err := URL(c.url, failOpen, dialing(c.dial), slog.New(slog.NewTextHandler(&logged, nil)))
					if err != nil {
						t.Fatal(err)
					}
					defer time.Sleep(slowDial) // net/http leaves a dial alone
					k, start := key.NewNode().Public(), time.Now()
					err = check(t.Context(), candidate(k))
					if d := time.Since(start); d != c.took {
						t.Errorf("took %v, want %v", d, c.took)
					}
					switch {
					case failOpen && (err != nil || !strings.Contains(logged.String(), k.Short())):
						t.Errorf("got %v and logged %q, want the client admitted and logged", err, logged.String())
					case !failOpen && (!strings.Contains(logged.String(), "refused") || err == nil || !strings.Contains(err.Error(), k.Short())):
						t.Errorf("got %v and logged %q, want a logged refusal that names the client", err, logged.String())
					}
				})
			})
		}
	}
}

// answering returns a connection whose other end reads a request, answers and
// hangs up.
func answering(answer string) net.Conn {
	here, there := net.Pipe()
	go func() {
		defer there.Close()
		there.Read(make([]byte, 4096))
		io.WriteString(there, answer)
	}()
	return here
}

// TestURLClientGone: a client that leaves while the controller is asked is not
// admitted because of that, and nothing is logged of it.
func TestURLClientGone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	check, logged := serveController(t, true, func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // before that a server does not notice
		cancel()
		<-r.Context().Done()
	})
	if err := check(ctx, candidate(key.NewNode().Public())); !errors.Is(err, context.Canceled) || logged.Len() != 0 {
		t.Errorf("got %v, logged %q", err, logged.String())
	}
}

// TestURLLogBounded: a login storm while the controller is down logs ten lines
// and then one a second.
func TestURLLogBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		down := func(context.Context) (net.Conn, error) { return nil, errors.New("down") }
		check, err := URL("http://a/", true, dialing(down), slog.New(slog.NewTextHandler(&logged, nil)))
		if err != nil {
			t.Fatal(err)
		}
		for range 300 {
			wantErr(t, check(t.Context(), candidate(key.NewNode().Public())))
			time.Sleep(10 * time.Millisecond) // fake time
		}
		if n := strings.Count(logged.String(), "\n"); n < 10 || n > 14 {
			t.Errorf("300 logins in 3 s logged %d lines", n)
		}
	})
}

// TestURLConfig: an empty URL is no check, a bad one is an error that shows no
// password.
func TestURLConfig(t *testing.T) {
	if check, err := URL("", true, nil, nil); check != nil || err != nil {
		t.Errorf("empty: %v, %v", check != nil, err)
	}
	for _, u := range []string{"admit.example", "/admit", "ftp://u:secret@a/", "http://", "http://[::1/", "http://a b/"} {
		if _, err := URL(u, false, nil, nil); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", u, err)
		}
	}
	for _, u := range []string{"http://a/", "https://u:secret@a:8443/x"} {
		if check, err := URL(u, false, nil, nil); check == nil || err != nil {
			t.Errorf("%q: %v", u, err)
		}
	}
}

// TestAll: every check must pass, in order; none is no check.
func TestAll(t *testing.T) {
	if All() != nil || All(nil, nil) != nil {
		t.Error("no checks are a check")
	}
	var asked []string
	check := func(name string, err error) Check {
		return func(context.Context, relay.Candidate) error {
			asked = append(asked, name)
			return err
		}
	}
	no := errors.New("no")
	for _, c := range []struct {
		all   Check
		want  error
		asked string
	}{
		{All(check("a", nil), nil, check("b", nil)), nil, "a b"},
		{All(nil, check("a", nil), check("b", no), check("c", nil)), no, "a b"},
		{All(check("a", no)), no, "a"},
	} {
		asked = nil
		if err := c.all(t.Context(), relay.Candidate{}); err != c.want || strings.Join(asked, " ") != c.asked {
			t.Errorf("asked %v: %v, want %s: %v", asked, err, c.asked, c.want)
		}
	}
}

// TestInTime: a dial that nobody waits for ends by itself.
func TestInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		start := time.Now()
		if _, err := inTime(hangs)(t.Context(), "tcp", "a:1"); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// FuzzAllows: nothing but an Allow that is true admits a client (DERP-74).
func FuzzAllows(f *testing.F) {
	for _, c := range answers {
		f.Add([]byte(c.body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if allows(body) != nil {
			return
		}
		var answer map[string]any
		if err := json.NewDecoder(bytes.NewReader(body)).Decode(&answer); err != nil {
			t.Fatalf("%q admits a client: %v", body, err)
		}
		for name, v := range answer {
			if strings.EqualFold(name, "allow") && v == true {
				return
			}
		}
		t.Fatalf("%q admits a client", body)
	})
}
