package bootstrap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// zone is a resolver of names in memory.
type zone struct {
	mu    sync.Mutex
	addrs map[string][]netip.Addr
	txt   map[string][]string
	hangs map[string]bool // names whose lookup lasts until it is given up
	asked map[string]int
}

func newZone() *zone {
	return &zone{addrs: map[string][]netip.Addr{}, txt: map[string][]string{}, hangs: map[string]bool{}, asked: map[string]int{}}
}

func (z *zone) set(name string, addrs ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.addrs[name] = nil
	for _, a := range addrs {
		z.addrs[name] = append(z.addrs[name], netip.MustParseAddr(a))
	}
}

func (z *zone) unset(name string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	delete(z.addrs, name)
}

func (z *zone) LookupIP(ctx context.Context, name string) ([]netip.Addr, error) {
	z.mu.Lock()
	z.asked[name]++
	addrs, ok := z.addrs[name]
	hangs := z.hangs[name]
	z.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if !ok {
		return nil, errors.New("no such host")
	}
	return slices.Clone(addrs), nil
}

func (z *zone) LookupTXT(_ context.Context, name string) ([]string, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	txt, ok := z.txt[name]
	if !ok {
		return nil, errors.New("no such host")
	}
	return txt, nil
}

// start runs a service in a bubble until stop is called.
func start(t *testing.T, c Config) (s *Service, stop func()) {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	synctest.Wait()
	return s, func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve ended with %v", err)
		}
	}
}

// ask returns what a client at an address is told, addresses sorted.
func ask(t *testing.T, s *Service, from, query string) map[string][]string {
	t.Helper()
	r := httptest.NewRequest("GET", "/bootstrap-dns"+query, nil)
	r.RemoteAddr = from
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if w.Code != 200 || w.Header().Get("Content-Type") != "application/json" || w.Header().Get("Connection") != "close" {
		t.Errorf("answer %d with %v", w.Code, w.Header())
	}
	var got map[string][]string
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatalf("%v in %q", err, w.Body)
	}
	for _, addrs := range got {
		slices.Sort(addrs)
	}
	return got
}

const somewhere = "203.0.113.9:4321"

// names returns those that an answer tells.
func names(m map[string][]string) string {
	return strings.Join(slices.Sorted(maps.Keys(m)), " ")
}

// TestPublished: DERP-104: everyone is told the published names with all their
// addresses; one that does not resolve is omitted, until the next refresh finds
// it; nothing is known before the first.
func TestPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone()
		z.set("a.example", "203.0.113.1", "2001:db8::1")
		z.set("b.example", "203.0.113.2")
		c := Config{Names: []string{"a.example", "b.example", "c.example"}, Resolver: z}
		early, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		if got := ask(t, early, somewhere, ""); got == nil || len(got) != 0 {
			t.Errorf("before anything is resolved: %v", got)
		}
		s, stop := start(t, c)
		defer stop()
		got := ask(t, s, somewhere, "")
		want := map[string][]string{"a.example": {"2001:db8::1", "203.0.113.1"}, "b.example": {"203.0.113.2"}}
		if !maps.EqualFunc(got, want, slices.Equal) {
			t.Errorf("told %v, want %v", got, want)
		}
		z.set("a.example", "203.0.113.7")
		z.unset("b.example")
		z.set("c.example", "203.0.113.3")
		time.Sleep(10*time.Minute - time.Second) // fake time
		if got := ask(t, s, somewhere, ""); !maps.EqualFunc(got, want, slices.Equal) {
			t.Errorf("told %v before ten minutes have passed", got)
		}
		time.Sleep(2 * time.Second) // fake time
		synctest.Wait()
		want = map[string][]string{"a.example": {"203.0.113.7"}, "c.example": {"203.0.113.3"}}
		if got := ask(t, s, somewhere, ""); !maps.EqualFunc(got, want, slices.Equal) {
			t.Errorf("told %v after ten minutes, want %v", got, want)
		}
	})
}

// TestForm: the answer is indented with tabs (DERP-104).
func TestForm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone()
		z.set("a.example", "203.0.113.1")
		s, stop := start(t, Config{Names: []string{"a.example"}, Resolver: z})
		defer stop()
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest("GET", "/bootstrap-dns", nil))
		if want := "{\n\t\"a.example\": [\n\t\t\"203.0.113.1\"\n\t]\n}"; w.Body.String() != want {
			t.Errorf("told %q, want %q", w.Body, want)
		}
	})
}

// TestSlowName: a name whose lookup hangs is given up after a minute and keeps
// no other from being told (DERP-104).
func TestSlowName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone()
		z.set("a.example", "203.0.113.1")
		z.set("b.example", "203.0.113.2")
		z.hangs["b.example"] = true
		s, stop := start(t, Config{Names: []string{"b.example", "a.example"}, Resolver: z})
		defer stop()
		time.Sleep(time.Minute + time.Second) // fake time
		synctest.Wait()
		if got := names(ask(t, s, somewhere, "")); got != "a.example" {
			t.Errorf("told %q", got)
		}
		z.mu.Lock()
		z.hangs["b.example"] = false
		z.mu.Unlock()
		time.Sleep(10 * time.Minute) // fake time
		synctest.Wait()
		if got := names(ask(t, s, somewhere, "")); got != "a.example b.example" {
			t.Errorf("told %q when both resolve", got)
		}
	})
}

// TestStopInLookup: Serve ends at once while a lookup hangs.
func TestStopInLookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone()
		z.hangs["a.example"] = true
		_, stop := start(t, Config{Names: []string{"a.example"}, Resolver: z})
		now := time.Now()
		stop()
		if d := time.Since(now); d != 0 {
			t.Errorf("ended after %v", d)
		}
	})
}

// TestShuffled: the order of addresses is random, so that no client prefers a
// family by the accident of a resolver's order (DERP-104).
func TestShuffled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone()
		var addrs []string
		for i := range 16 {
			addrs = append(addrs, fmt.Sprintf("203.0.113.%d", i))
		}
		z.set("a.example", addrs...)
		s, stop := start(t, Config{Names: []string{"a.example"}, Resolver: z})
		defer stop()
		orders := make(map[string]bool)
		for range 4 {
			orders[string(s.answers.Get().published)] = true
			time.Sleep(10 * time.Minute) // fake time
			synctest.Wait()
		}
		if len(orders) < 2 {
			t.Error("16 addresses come four times in the same order")
		}
	})
}

// TestUnpublished: DERP-104: an unpublished name is told to those who ask for
// it, alone, and to nobody else in any way.
func TestUnpublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone()
		z.set("pub.example", "203.0.113.1")
		for _, name := range []string{"all.example", "none.example", "full.example", "bad.example", "lost.example"} {
			z.set(name, "203.0.113.2")
		}
		z.txt["0.example"] = []string{"0"}
		z.txt["100.example"] = []string{"spf", "100"}
		z.txt["bad-txt.example"] = []string{"101", "-1", "50%", ""}
		s, stop := start(t, Config{
			Names: []string{"pub.example", "away.example"},
			Unpublished: []string{
				"all.example", "none.example/0.example", "full.example/100.example", "bad.example/bad-txt.example",
				"lost.example/no-txt.example", "gone.example",
			},
			Resolver: z,
		})
		defer stop()
		for query, want := range map[string]string{
			"":                  "pub.example",
			"?q=":               "pub.example",
			"?q=pub.example":    "pub.example",
			"?q=away.example":   "pub.example",
			"?q=other.example":  "pub.example",
			"?q=all.example":    "all.example",
			"?q=full.example":   "full.example",
			"?q=none.example":   "pub.example",
			"?q=bad.example":    "pub.example",
			"?q=lost.example":   "pub.example",
			"?q=gone.example":   "pub.example",
			"?q=all.example%00": "pub.example",
			"?q=all":            "pub.example",
			"?name=all.example": "pub.example",
		} {
			if got := names(ask(t, s, somewhere, query)); got != want {
				t.Errorf("%q is told %q, want %q", query, got, want)
			}
		}
		want := Stats{Requests: 14, PublishedHits: 1, PublishedMisses: 1, UnpublishedHits: 2, UnpublishedPercentMisses: 3, UnpublishedMisses: 4, QueriedDomains: 11}
		if got := s.Stats(); got != want {
			t.Errorf("counted %+v, want %+v", got, want)
		}
	})
}

// TestRollout: DERP-104: about the percentage of all clients is told, always
// the same ones, whatever their port and form of address.
func TestRollout(t *testing.T) {
	for _, percent := range []int{1, 25, 50, 99} {
		for family, format := range map[string]string{"IPv4": "203.0.%d.%d:%d", "IPv6": "[2001:db8:%x::%x]:%d"} {
			const clients = 10000
			told := 0
			for i := range clients {
				first := inRollout(fmt.Sprintf(format, i/250, i%250, 1000), percent)
				if again := inRollout(fmt.Sprintf(format, i/250, i%250, 2000), percent); again != first {
					t.Fatalf("client %d is told from one port only", i)
				}
				if first {
					told++
				}
			}
			if want := clients * percent / 100; told < want-200 || told > want+200 {
				t.Errorf("%s at %d %%: %d of %d are told", family, percent, told, clients)
			}
		}
	}
	for i := range 250 {
		v4, mapped := fmt.Sprintf("203.0.113.%d:1", i), fmt.Sprintf("[::ffff:203.0.113.%d]:1", i)
		if inRollout(v4, 50) != inRollout(mapped, 50) {
			t.Errorf("%s and %s are not the same client", v4, mapped)
		}
	}
}

// TestRolloutEdges: nobody is in 0 %, everybody in 100 %; a client of this host
// is now and then; one without an address is in none but the last.
func TestRolloutEdges(t *testing.T) {
	for _, remote := range []string{"127.0.0.1:1", "[::1]:1", somewhere, "@", ""} {
		if inRollout(remote, 0) || !inRollout(remote, 100) {
			t.Errorf("%q: in 0 %%: %v, in 100 %%: %v", remote, inRollout(remote, 0), inRollout(remote, 100))
		}
	}
	if inRollout("@", 99) {
		t.Error("a client without an address is told")
	}
	seen := make(map[bool]bool)
	for range 1000 {
		seen[inRollout("127.0.0.1:1", 50)] = true
	}
	if len(seen) != 2 {
		t.Errorf("1000 times this host is always told: %v", seen)
	}
}

// TestQueriedBounded: DERP-104: the names that strangers ask for are counted up
// to 500, then anew; what no name can be takes no memory at all.
func TestQueriedBounded(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 500 {
		ask(t, s, somewhere, fmt.Sprintf("?q=%d.example", i))
	}
	ask(t, s, somewhere, "?q=7.example")
	ask(t, s, somewhere, "?q="+url.QueryEscape(strings.Repeat("x", 254)))
	if n := s.Stats().QueriedDomains; n != 500 {
		t.Errorf("%d names are remembered, want 500", n)
	}
	ask(t, s, somewhere, "?q=500.example")
	if n := s.Stats().QueriedDomains; n != 0 {
		t.Errorf("%d names are remembered after the 501st, want none", n)
	}
	if s := s.Stats(); s.Requests != 503 || s.UnpublishedMisses != 503 {
		t.Errorf("counted %+v", s)
	}
}

// TestConfig: what cannot be a name is refused with the name in the error.
func TestConfig(t *testing.T) {
	for _, c := range []Config{
		{Names: []string{"a.example", ""}},
		{Names: []string{"203.0.113.1"}},
		{Names: []string{"a.example/b.example"}},
		{Names: []string{"a example"}},
		{Names: []string{"bücher.example"}},
		{Names: []string{strings.Repeat("x", 254)}},
		{Unpublished: []string{"/b.example"}},
		{Unpublished: []string{"a.example/"}},
		{Unpublished: []string{"a.example/b/c"}},
		{Unpublished: []string{"a.example, b.example"}},
	} {
		all := append(c.Names, c.Unpublished...)
		last := all[len(all)-1]
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", last)) {
			t.Errorf("%q: %v", last, err)
		}
	}
	if _, err := New(Config{Names: []string{"a.example", "xn--bcher-kva.example"}, Unpublished: []string{"b.example", "c.example/t.example"}}); err != nil {
		t.Error(err)
	}
}
