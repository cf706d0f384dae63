package dns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/internal/simnet"
	"github.com/seed94491740/tsnode/netmap"
)

func newCell[T any](v T) *actor.Cell[T] { return actor.NewCell(v) }

// A table is made when it is needed, and again when netmap or preferences change.
func TestTableFollows(t *testing.T) {
	nm, prefs := newCell[*netmap.Netmap](nil), newCell(accept)
	r := New(Config{Netmap: nm, Preferences: prefs})
	defer r.Close()
	first := r.Table()
	if first != r.Table() {
		t.Error("without a change there is another table")
	}
	nm.Store(newNetmap())
	check(t, r.Table(), []row{{"both.tail.ts.net", a, "Success 100.64.0.2/5"}, {"x.example", a, "-> . 192.0.2.53:53"}})
	prefs.Store(Preferences{})
	check(t, r.Table(), []row{{"x.example", a, "-> ."}})
}

// SVC-79: the order in which names are resolved.
func TestSVC79Order(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ok := w.says(dnsmessage.RCodeSuccess, "10.9.9.9")
		w.serve(w.inside, "10.0.0.53", func(q []byte) []byte {
			p, err := parseQuery(q, false)
			switch {
			case err != nil:
				t.Error(err)
			case p.name == "bad.corp.example":
				return replyTo(t, q, dnsmessage.RCodeServerFailure)
			case p.name == "gone.corp.example":
				return replyTo(t, q, dnsmessage.RCodeNameError)
			case p.question.Type == aaaa:
				return replyTo(t, q, dnsmessage.RCodeSuccess)
			}
			return ok(q)
		}, nil)
		w.netmap.DNS.Routes = map[string][]netmap.Resolver{"corp.example": {{Addr: "10.0.0.53"}}}
		w.use("192.0.2.1") // a default resolver is not for Dial
		for _, tt := range []struct {
			network, name, want string
			ours                bool
			err                 error
		}{
			{"ip", "both", "[100.64.0.2 fd7a:115c:a1e0::2]", true, nil},
			{"ip", "extra.corp.example", "[100.64.9.9 fd7a:115c:a1e0::99]", true, nil},
			{"ip", "x.corp.example.", "[10.9.9.9]", true, nil},
			{"ip4", "x.corp.example", "[10.9.9.9]", true, nil},
			{"ip6", "x.corp.example", "[]", true, ErrNotFound},
			{"ip", "gone.corp.example", "[]", true, ErrNotFound},
			{"ip", "bad.corp.example", "[]", true, &CodeError{}},
			{"ip", "nobody.tail.ts.net", "[]", true, ErrNotFound},
			{"ip", "wiki", "[10.9.9.9]", true, nil},    // with the search domain
			{"ip", "extra", "[100.64.9.8]", true, nil}, // with the tailnet's suffix, which comes first
			{"ip", "wiki.", "[]", false, nil},          // a name of one label, and no more
			{"ip", "gone", "[]", false, nil},           // perhaps the host knows
			{"ip", "x.example", "[]", false, nil},      // no route: the host's
			{"ip", "", "[]", false, nil},
		} {
			addrs, ours, err := w.resolver.Lookup(t.Context(), tt.network, tt.name)
			var code *CodeError
			if fmt.Sprint(addrs) != tt.want || ours != tt.ours || (err == nil) != (tt.err == nil) ||
				errors.Is(tt.err, ErrNotFound) != errors.Is(err, ErrNotFound) || errors.As(tt.err, &code) != errors.As(err, &code) {
				t.Errorf("%s %q: %v, %v, %v, want %s, %v, %v", tt.network, tt.name, addrs, ours, err, tt.want, tt.ours, tt.err)
			}
		}
	})
}

// SVC-79: while an exit node is in use it is asked for everything but localhost.
func TestSVC79ExitNode(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		exit := w.inside.AddHost("exit", simnet.HostConfig{Addrs: []netip.Addr{netip.MustParseAddr("100.64.0.5")}})
		w.serveHTTP(exit, "4000", nil, w.overHTTP("exit", w.says(dnsmessage.RCodeSuccess, "192.0.2.7")))
		w.prefs.Store(Preferences{AcceptDNS: true, ExitNode: "n5"})
		addrs, ours, err := w.resolver.Lookup(t.Context(), "ip4", "x.example")
		if err != nil || !ours || fmt.Sprint(addrs) != "[192.0.2.7]" {
			t.Errorf("%v, %v, %v", addrs, ours, err)
		}
		if addrs, ours, err := w.resolver.Lookup(t.Context(), "ip4", "localhost."); ours {
			t.Errorf("localhost: %v, %v", addrs, err)
		}
	})
}

// SVC-81: Go's own resolver, on a connection inside the process.
func TestSVC81NetResolver(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ok := w.says(dnsmessage.RCodeSuccess, "192.0.2.7")
		w.serve(w.net, "192.0.2.1", func(q []byte) []byte {
			if p, err := parseQuery(q, false); err == nil && p.question.Type == aaaa {
				return replyTo(t, q, dnsmessage.RCodeSuccess)
			}
			return ok(q)
		}, nil)
		w.net.SetName("known.example", netip.MustParseAddr("192.0.2.8"))
		std := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) { return w.resolver.Dial(), nil }}
		lookup := func(name string) string {
			addrs, err := std.LookupHost(t.Context(), name)
			var missing *net.DNSError
			if errors.As(err, &missing) && missing.IsNotFound {
				return "no such host"
			}
			return fmt.Sprint(addrs, err)
		}
		for name, want := range map[string]string{
			"both.tail.ts.net.":   "[100.64.0.2] <nil>",
			"six.tail.ts.net.":    "[fd7a:115c:a1e0::3] <nil>",
			"nobody.tail.ts.net.": "no such host",
			"known.example.":      "[192.0.2.8] <nil>", // by the host
			"unknown.example.":    "no such host",
		} {
			if got := lookup(name); got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
		}
		if names, err := std.LookupAddr(t.Context(), "100.64.0.2"); err != nil || !slices.Equal(names, []string{"both.tail.ts.net."}) {
			t.Errorf("names of 100.64.0.2: %v, %v", names, err)
		}
		w.use("192.0.2.1")
		if got, want := lookup("known.example."), "[192.0.2.7] <nil>"; got != want {
			t.Errorf("with a resolver of the tailnet: %s, want %s", got, want)
		}
	})
}

// A connection inside the process keeps deadlines, and ends with Close.
func TestMemoryConn(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.serve(w.net, "192.0.2.1", silent, nil)
		w.use("192.0.2.1")
		c := w.resolver.Dial()
		if _, err := c.Read(make([]byte, 9)); err != io.EOF {
			t.Errorf("without a question: %v", err)
		}
		ask := func() error {
			if err := writeMessage(c, message(t, "x.example", a)); err != nil {
				return err
			}
			_, err := readMessage(c)
			return err
		}
		c.SetDeadline(time.Now().Add(time.Second))
		began := time.Now()
		if err := ask(); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("past the deadline: %v after %v", err, time.Since(began))
		}
		c.SetDeadline(time.Time{})
		ended := make(chan error)
		go func() { ended <- ask() }()
		synctest.Wait()
		c.Close()
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("during Close: %v", err)
		}
		if err := ask(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		big := w.resolver.Dial()
		defer big.Close()
		if _, err := big.Write(make([]byte, 1<<17)); err == nil {
			t.Error("128 KiB of questions are taken at once")
		}
	})
}

// A lookup of a name of the tailnet allocates nothing, however many there are.
func TestDecideAllocatesNothing(t *testing.T) {
	table := Compile(bigNetmap(1000), accept, nil)
	for _, name := range []string{"peer-777.tail.ts.net", "peer-777", "nobody.tail.ts.net", "x.corp.example"} {
		if n := testing.AllocsPerRun(100, func() { table.Decide(name, a) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// bigNetmap returns a tailnet of n peers.
func bigNetmap(n int) *netmap.Netmap {
	nm := newNetmap()
	nm.Peers = nil
	for i := range n {
		v4 := netip.AddrFrom4([4]byte{100, 70, byte(i >> 8), byte(i)})
		p := newPeer(i+2, fmt.Sprintf("peer-%d.tail.ts.net.", i), v4.String(), fmt.Sprintf("fd7a:115c:a1e0::7:%x", i))
		nm.Peers = append(nm.Peers, p)
	}
	return nm
}

func BenchmarkDecide10000Peers(b *testing.B) {
	table := Compile(bigNetmap(10000), accept, nil)
	for name, typ := range map[string]dnsmessage.Type{
		"peer-7777.tail.ts.net": a, "peer-7777": a, "nobody.tail.ts.net": a, "x.corp.example": a, "97.30.70.100.in-addr.arpa": ptr,
	} {
		b.Run(name, func(b *testing.B) {
			table.Decide(name, typ)
			b.ReportAllocs()
			for b.Loop() {
				table.Decide(name, typ)
			}
		})
	}
}

// BenchmarkCompile10000Peers: what a new netmap costs: the table, the index of
// names when the first question comes, and a netmap in which one peer has moved.
func BenchmarkCompile10000Peers(b *testing.B) {
	nm := bigNetmap(10000)
	table := Compile(nm, accept, nil)
	moved := *nm
	moved.Peers = slices.Clone(nm.Peers)
	p := *nm.Peers[5000]
	p.HomeDERP = 7
	moved.Peers[5000] = &p
	for name, f := range map[string]func(){
		"table":    func() { Compile(nm, accept, nil) },
		"question": func() { Compile(nm, accept, nil).Decide("peer-7777", a) },
		"reverse":  func() { Compile(nm, accept, nil).Decide("97.30.70.100.in-addr.arpa", ptr) },
		"moved":    func() { Compile(&moved, accept, table).Decide("peer-7777", a) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
		})
	}
}

func BenchmarkQuery(b *testing.B) {
	r := New(Config{Netmap: newCell(bigNetmap(10000)), Preferences: newCell(accept)})
	q := message(b, "peer-7777.tail.ts.net", a)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Query(b.Context(), "udp", q); err != nil {
			b.Fatal(err)
		}
	}
}
