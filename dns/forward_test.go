package dns

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/simnet"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
)

const (
	trip     = 20 * time.Millisecond // to a server and back
	good     = "Success 192.0.2.7/5"
	servfail = "ServerFailure"
)

// long returns a handler that answers with more addresses than fit 512 bytes.
func (w *world) long(n int) handler {
	addrs := slices.Repeat([]string{"192.0.2.7"}, n)
	return w.says(dnsmessage.RCodeSuccess, addrs...)
}

// cut returns a handler whose answers are truncated.
func cut(h handler) handler {
	return func(q []byte) []byte {
		answer := h(q)
		answer[2] |= bitTruncated
		return answer
	}
}

// SVC-75: UDP first, TCP after 2 s, at once when UDP is of no use.
func TestSVC75RaceOfUDPAndTCP(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ok := w.says(dnsmessage.RCodeSuccess, "192.0.2.7")
		w.serve(w.net, "192.0.2.1", ok, ok)
		w.serve(w.net, "192.0.2.2", silent, ok)
		w.serve(w.net, "192.0.2.3", later(3*time.Second, ok), silent)
		w.serve(w.net, "192.0.2.4", cut(w.says(0)), ok)
		w.serve(w.net, "192.0.2.5", silent, silent)
		w.serve(w.net, "192.0.2.6", cut(ok), nil)
		for _, tt := range []struct {
			server, network, want string
			took                  time.Duration
			asked                 []string
		}{
			{"192.0.2.1", "udp", good, trip, []string{"192.0.2.1 udp"}},
			{"192.0.2.2", "udp", good, udpPatience + 2*trip, []string{"192.0.2.2 udp", "192.0.2.2 tcp"}},
			{"192.0.2.3", "udp", good, 3*time.Second + trip, []string{"192.0.2.3 udp", "192.0.2.3 tcp"}},
			{"192.0.2.4", "udp", "Success truncated", trip, []string{"192.0.2.4 udp"}},
			{"192.0.2.4", "tcp", good, 2 * trip, []string{"192.0.2.4 udp", "192.0.2.4 tcp"}},
			{"192.0.2.6", "tcp", "Success truncated 192.0.2.7/5", trip, []string{"192.0.2.6 udp"}},
			{"192.0.2.5", "udp", servfail, queryTimeout, []string{"192.0.2.5 udp", "192.0.2.5 tcp"}},
		} {
			w.use(tt.server)
			w.expect(tt.network, "x.example", tt.want, tt.took)
			if asked := w.asked(); !slices.Equal(asked, tt.asked) {
				t.Errorf("%s over %s: asked %v, want %v", tt.server, tt.network, asked, tt.asked)
			}
		}
	})
}

// SVC-75: of several servers the first good answer wins; SERVFAIL and REFUSED
// lose to any other.
func TestSVC75SeveralResolvers(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ok := w.says(dnsmessage.RCodeSuccess, "192.0.2.7")
		w.serve(w.net, "192.0.2.1", later(time.Second, ok), ok)
		w.serve(w.net, "192.0.2.2", silent, silent)
		w.serve(w.net, "192.0.2.3", w.says(dnsmessage.RCodeServerFailure), nil)
		w.serve(w.net, "192.0.2.4", w.says(dnsmessage.RCodeRefused), nil)
		w.serve(w.net, "192.0.2.5", w.says(dnsmessage.RCodeNameError), nil)
		w.serve(w.net, "192.0.2.6", w.says(dnsmessage.RCodeRefused), nil)
		for _, tt := range []struct {
			servers []string
			want    string
			took    time.Duration
		}{
			{[]string{"192.0.2.1", "192.0.2.5"}, "NameError", trip},
			{[]string{"192.0.2.3", "192.0.2.4", "192.0.2.1"}, good, time.Second + trip},
			{[]string{"192.0.2.3", "192.0.2.4"}, servfail, trip},
			{[]string{"192.0.2.4", "192.0.2.3"}, servfail, trip},
			{[]string{"192.0.2.4", "192.0.2.6"}, "Refused", trip},
			{[]string{"192.0.2.4", "192.0.2.2"}, servfail, udpPatience + tcpTimeout + 100*time.Hour},
			{[]string{"192.0.2.99"}, servfail, queryTimeout},
			{nil, servfail, 0},
		} {
			w.use(tt.servers...)
			got, took := w.ask("udp", "x.example", a)
			if got != tt.want || took != min(tt.took, queryTimeout) {
				t.Errorf("%v: %s after %v, want %s after %v", tt.servers, got, took, tt.want, tt.took)
			}
		}
	})
}

// An answer counts only if it has the ID and the question that were sent, and
// comes from the server that was asked. The ID is not the client's (RFC 5452).
func TestOnlyAnswersCount(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		server := w.net.AddHost("server", simnet.HostConfig{})
		forger := w.net.AddHost("forger", simnet.HostConfig{})
		listen := func(h *simnet.Host, port uint16) host.UDPConn {
			c, err := h.ListenUDP(t.Context(), "udp4", port)
			if err != nil {
				t.Fatal(err)
			}
			w.closers = append(w.closers, c)
			return c
		}
		right, otherPort, otherHost := listen(server, dnsPort), listen(server, 54), listen(forger, dnsPort)
		evil, ok := w.says(dnsmessage.RCodeSuccess, "192.0.2.66"), w.says(dnsmessage.RCodeSuccess, "192.0.2.7")
		var ids []uint16
		w.serving.Go(func() {
			for {
				ms := []host.Message{{Buf: make([]byte, 64<<10)}}
				if _, err := right.ReadBatch(ms); err != nil {
					return
				}
				q := ms[0].Buf[:ms[0].N]
				ids = append(ids, binary.BigEndian.Uint16(q))
				otherID, otherName := evil(q), evil(message(t, "y.example", a))
				otherID[0] ^= 1
				copy(otherName, q[:2])
				for _, forged := range []struct {
					from host.UDPConn
					msg  []byte
				}{{right, otherID}, {right, otherName}, {right, q}, {right, q[:5]}, {otherPort, evil(q)}, {otherHost, evil(q)}, {right, ok(q)}} {
					forged.from.WriteBursts(ms[0].From, []packet.Burst{{Buf: forged.msg, Size: len(forged.msg), Count: 1}})
				}
			}
		})
		w.use(server.Addr4().String())
		w.expect("udp", "x.example", good, trip)
		w.expect("udp", "x.EXAMPLE", good, trip)
		if n := w.resolver.Stats().Mismatched; n != 8 {
			t.Errorf("%d messages counted as mismatched, want 8", n)
		}
		if slices.Equal(ids, []uint16{77, 77}) {
			t.Error("questions are sent on with the client's ID")
		}
	})
}

// SVC-76: a server in the tailnet, or behind a subnet route, is asked through the
// tunnel, others on the host network.
func TestSVC76Tunnel(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		inside, outside := w.says(dnsmessage.RCodeSuccess, "10.9.9.9"), w.says(dnsmessage.RCodeSuccess, "192.0.2.7")
		w.serve(w.inside, "10.0.0.53", inside, inside)
		w.serve(w.net, "192.0.2.1", outside, outside)
		w.serve(w.inside, "100.64.0.2", cut(inside), inside)
		w.netmap.DNS.Routes = map[string][]netmap.Resolver{"corp.example": {{Addr: "10.0.0.53"}}, "node.example": {{Addr: "100.64.0.2"}}}
		w.use("192.0.2.1")
		w.expect("udp", "x.corp.example", "Success 10.9.9.9/5", trip)
		w.expect("tcp", "x.node.example", "Success 10.9.9.9/5", 2*trip)
		w.expect("udp", "x.example", good, trip)
		if got, want := w.asked(), []string{"10.0.0.53 udp", "100.64.0.2 udp", "100.64.0.2 tcp", "192.0.2.1 udp"}; !slices.Equal(got, want) {
			t.Errorf("asked %v, want %v", got, want)
		}
	})
}

// SVC-77: a well-known resolver is asked over HTTPS, and over UDP should that not
// answer within 500 ms, a second address 200 ms later.
func TestSVC77Upgrade(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		config := w.certificate("dns.google")
		ok := w.says(dnsmessage.RCodeSuccess, "192.0.2.7")
		first := w.serve(w.net, "8.8.8.8", silent, nil)
		w.serve(w.net, "8.8.4.4", ok, nil)
		w.use("8.8.8.8", "8.8.4.4")
		w.expect("udp", "x.example", good, dohHeadStart+secondDelay+trip)
		if got, want := w.asked(), []string{"8.8.8.8 udp", "8.8.4.4 udp"}; !slices.Equal(got, want) {
			t.Errorf("asked %v, want %v", got, want)
		}
		answer := ok
		w.serveHTTP(first, "443", config, w.overHTTP("google", func(q []byte) []byte {
			if binary.BigEndian.Uint16(q) != 0 {
				t.Errorf("ID %d over HTTPS, want 0 (RFC 8484 section 4.1)", binary.BigEndian.Uint16(q))
			}
			return answer(q)
		}))
		if got, took := w.ask("udp", "x.example", a); got != good || took >= dohHeadStart {
			t.Errorf("%s after %v", got, took)
		}
		if got, want := w.asked(), []string{"google HTTP/1.1 POST /dns-query"}; !slices.Equal(got, want) {
			t.Errorf("asked %v, want %v", got, want)
		}
		w.expect("udp", "x.example", good, trip) // on the same connection
		w.asked()
		answer = silent
		w.expect("udp", "x.example", good, dohHeadStart+secondDelay+trip)
	})
}

// SVC-77: nothing below TLS 1.3, and no certificate of others.
func TestSVC77RefusesWeakServers(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		old := w.certificate("dns.google")
		old.MaxVersion = tls.VersionTLS12
		other := w.certificate("dns.example")
		ok := w.says(dnsmessage.RCodeSuccess, "192.0.2.7")
		for addr, config := range map[string]*tls.Config{"8.8.8.8": old, "2001:4860:4860::8888": other} {
			h := w.net.AddHost(addr, simnet.HostConfig{Addrs: []netip.Addr{netip.MustParseAddr(addr)}})
			w.serveHTTP(h, "443", config, w.overHTTP(addr, ok))
		}
		w.use("https://dns.google/dns-query")
		if got, _ := w.ask("udp", "x.example", a); got != servfail {
			t.Errorf("answer of a server that proves nothing: %s", got)
		}
		if asked := w.asked(); len(asked) != 0 {
			t.Errorf("asked %v", asked)
		}
	})
}

// https:// resolvers of anybody are found by the host's resolver.
func TestArbitraryHTTPS(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		config := w.certificate("dns.example")
		h := w.net.AddHost("doh", simnet.HostConfig{})
		w.net.SetName("dns.example", h.Addrs()...)
		w.serveHTTP(h, "8443", config, w.overHTTP("doh", w.says(dnsmessage.RCodeSuccess, "192.0.2.7")))
		w.use("https://dns.example:8443/q")
		if got, _ := w.ask("udp", "x.example", a); got != good {
			t.Error(got)
		}
		if got, want := w.asked(), []string{"doh HTTP/1.1 POST /q"}; !slices.Equal(got, want) {
			t.Errorf("asked %v, want %v", got, want)
		}
	})
}

// SVC-78: DNS over a peer's peerAPI goes through the tunnel.
func TestSVC78PeerAPI(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		exit := w.inside.AddHost("exit", simnet.HostConfig{Addrs: []netip.Addr{netip.MustParseAddr("100.64.0.5")}})
		w.serveHTTP(exit, "4000", nil, w.overHTTP("exit", w.says(dnsmessage.RCodeSuccess, "192.0.2.7")))
		w.prefs.Store(Preferences{AcceptDNS: true, ExitNode: "n5"})
		w.expect("udp", "x.example", good, 2*trip)
		w.expect("udp", "x.example", good, trip) // on the same connection
		if got, want := w.asked(), slices.Repeat([]string{"exit HTTP/1.1 POST /dns-query"}, 2); !slices.Equal(got, want) {
			t.Errorf("asked %v, want %v", got, want)
		}
		time.Sleep(idleTimeout + time.Second) // fake time: SVC-77
		w.expect("udp", "x.example", good, 2*trip)
	})
}

// Over HTTP, what is no answer is none, and a failure of the server is SERVFAIL.
func TestBadHTTPAnswers(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		peer := w.inside.AddHost("peer", simnet.HostConfig{Addrs: []netip.Addr{netip.MustParseAddr("100.64.0.5")}})
		var handle http.HandlerFunc
		w.serveHTTP(peer, "4000", nil, func(rw http.ResponseWriter, r *http.Request) { handle(rw, r) })
		w.use("http://100.64.0.5:4000/dns-query")
		for name, h := range map[string]http.HandlerFunc{
			"500":           func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(500) },
			"403":           func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(403) },
			"redirect":      func(rw http.ResponseWriter, r *http.Request) { http.Redirect(rw, r, "/other", http.StatusFound) },
			"no DNS":        func(rw http.ResponseWriter, _ *http.Request) { rw.Write([]byte("hello")) },
			"other answer":  w.overHTTP("", func([]byte) []byte { return message(t, "y.example", a) }),
			"short":         w.overHTTP("", func([]byte) []byte { return []byte{0} }),
			"much too long": w.overHTTP("", func([]byte) []byte { return make([]byte, 1<<20) }),
		} {
			handle = h
			if got, took := w.ask("udp", "x.example", a); got != servfail || took > time.Second {
				t.Errorf("%s: %s after %v", name, got, took)
			}
		}
		handle = w.overHTTP("", w.says(dnsmessage.RCodeSuccess, "192.0.2.7"))
		if got, _ := w.ask("udp", "x.example", a); got != good {
			t.Errorf("afterwards: %s", got)
		}
	})
}

// SVC-74: 10 s for a question, 256 at a time.
func TestSVC74TimeAndNumber(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.serve(w.net, "192.0.2.1", silent, nil)
		w.use("192.0.2.1")
		answers := make(chan []byte, maxUnderway)
		for range maxUnderway {
			go func() {
				msg, err := w.resolver.Query(t.Context(), "udp", message(t, "x.example", a))
				if err != nil {
					t.Error(err)
				}
				answers <- msg
			}()
		}
		synctest.Wait()
		w.expect("udp", "x.example", "busy", 0)
		w.expect("udp", "both.tail.ts.net", "Success 100.64.0.2/5", 0) // needs nobody
		began := time.Now()
		for range maxUnderway {
			if got := text(t, <-answers); got != servfail {
				t.Error(got)
			}
		}
		if took := time.Since(began); took != queryTimeout {
			t.Errorf("took %v, want %v", took, queryTimeout)
		}
		if s := w.resolver.Stats(); s.Busy != 1 || s.Forwarded != maxUnderway || s.Failed != maxUnderway || s.Local != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// SVC-74: how long answers may be, and that they say so.
func TestSVC74Sizes(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		n := 0
		var sizes []int
		w.serve(w.net, "192.0.2.1", func(q []byte) []byte {
			if at, ok := findOPT(q); ok {
				sizes = append(sizes, int(binary.BigEndian.Uint16(q[at:])))
			}
			return w.long(n)(q)
		}, func(q []byte) []byte { return w.long(n)(q) })
		w.use("192.0.2.1")
		for _, tt := range []struct {
			network   string
			edns      int // bytes; 0 = none
			addrs     int
			truncated bool
			records   int
		}{
			{"udp", 0, 10, false, 10},
			{"udp", 0, 40, true, 40}, // more than 512 bytes
			{"udp", 1232, 40, false, 40},
			{"udp", 1232, 100, true, 100},
			{"udp", 100, 10, false, 10}, // RFC 6891 section 6.2.3
			{"udp", 65000, 140, false, 140},
			{"udp", 65000, 300, true, 0}, // more than 4095 bytes
			{"tcp", 0, 300, false, 300},
		} {
			n = tt.addrs
			q := message(t, "x.example", a)
			if tt.edns > 0 {
				q = withOPT(t, q, tt.edns)
			}
			msg, err := w.resolver.Query(t.Context(), tt.network, q)
			var m dnsmessage.Message
			if err != nil || truncated(msg) != tt.truncated || tt.network == "udp" && len(msg) > maxUDP {
				t.Errorf("%+v: %d bytes, truncated %v, %v", tt, len(msg), truncated(msg), err)
			}
			if err := m.Unpack(msg); tt.records > 0 && (err != nil || len(m.Answers) != tt.records) {
				t.Errorf("%+v: %d records, %v", tt, len(m.Answers), err)
			}
		}
		if want := []int{1232, 1232, 100, maxUDP, maxUDP}; !slices.Equal(sizes, want) {
			t.Errorf("sizes offered to the server %v, want %v", sizes, want)
		}
	})
}

// withOPT adds an OPT record with an option behind it, as dig sends it.
func withOPT(t testing.TB, q []byte, size int) []byte {
	t.Helper()
	q[11]++
	q = append(q, 0, 0, 41, byte(size>>8), byte(size), 0, 0, 0, 0, 0, 12, 0, 10, 0, 8)
	return append(q, "12345678"...)
}

// A question ends with its caller, and with Close.
func TestQuestionsEnd(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.serve(w.net, "192.0.2.1", silent, silent)
		w.use("192.0.2.1", "192.0.2.2")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		msg, err := w.resolver.Query(ctx, "tcp", message(t, "x.example", a))
		if err != nil || text(t, msg) != servfail || time.Since(began) != time.Second {
			t.Errorf("%s, %v after %v", text(t, msg), err, time.Since(began))
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.expect("tcp", "x.example", servfail, time.Second)
		}()
		time.Sleep(time.Second) // fake time
		w.resolver.Close()
		<-done
		if _, err := w.resolver.Query(t.Context(), "udp", message(t, "x.example", a)); !errors.Is(err, ErrBusy) {
			t.Errorf("after Close: %v", err)
		}
	})
}
