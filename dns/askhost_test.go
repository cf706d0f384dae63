package dns

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/seed94491740/tsnode/host"
)

// A tellingNetwork tells the servers of its host.
type tellingNetwork struct {
	host.Network
	servers []string
}

func (n tellingNetwork) Nameservers() (servers []netip.AddrPort, err error) {
	for _, s := range n.servers {
		servers = append(servers, netip.AddrPortFrom(netip.MustParseAddr(s), dnsPort))
	}
	return servers, nil
}

// answersRaw answers with a record of the types TXT, MX and HTTPS, with NXDOMAIN
// for names that begin with m, and else with a code alone.
func answersRaw(t *testing.T) handler {
	return func(question []byte) []byte {
		var m dnsmessage.Message
		if err := m.Unpack(question); err != nil {
			t.Error(err)
			return nil
		}
		m.Response, m.Authoritative = true, false
		q := m.Questions[0]
		header := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 3600}
		switch {
		case q.Name.Data[0] == 'm':
			m.RCode = dnsmessage.RCodeNameError
		case q.Type == dnsmessage.TypeTXT:
			m.Answers = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.TXTResource{TXT: []string{"text"}}}}
		case q.Type == dnsmessage.TypeMX:
			m.Answers = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.MXResource{Pref: 10, MX: q.Name}}}
		case q.Type == dnsmessage.TypeHTTPS:
			m.Answers = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.HTTPSResource{SVCBResource: dnsmessage.SVCBResource{Priority: 1, Target: q.Name}}}}
		}
		b, err := m.Pack()
		if err != nil {
			t.Error(err)
		}
		return b
	}
}

// Without a server of the tailnet those of the host answer, as they would anybody:
// any type, with their TTL, and a name that does not exist.
func TestAsksServersOfTheHost(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.serve(w.net, "198.51.100.1", answersRaw(t), answersRaw(t))
		w.resolver.config.Network = tellingNetwork{w.node, []string{"100.100.100.100", "fd7a:115c:a1e0::53", "100.64.0.1", "198.51.100.1"}}
		self := *w.netmap.Self
		self.Addresses = append(slices.Clone(self.Addresses), netip.MustParsePrefix("100.64.0.1/32"))
		nm := *w.netmap
		nm.Self = &self
		w.cell.Store(&nm)
		for _, tt := range []struct {
			name string
			typ  dnsmessage.Type
			want string
		}{
			{"www.example", dnsmessage.TypeTXT, `NOERROR TXT 3600 "text"`},
			{"www.example", dnsmessage.TypeMX, `NOERROR MX 3600 10 www.example.`},
			{"www.example", dnsmessage.TypeHTTPS, `NOERROR TYPE65 3600 1 www.example.`},
			{"www.example", aaaa, "NOERROR"},
			{"missing.example", a, "NXDOMAIN"},
		} {
			msg, err := w.resolver.QueryOfPeer(t.Context(), message(t, tt.name, tt.typ))
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
				continue
			}
			if got := described(t, msg); got != tt.want || msg[1] != 77 {
				t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
			}
		}
		if msg, err := w.resolver.QueryOfPeer(t.Context(), message(t, "localhost", a)); err != nil || text(t, msg) != "Success 127.0.0.1/5" {
			t.Errorf("localhost: %x, %v", msg, err)
		}
		for _, asked := range w.asked() {
			if asked != "198.51.100.1 udp" && asked != "198.51.100.1 tcp" {
				t.Errorf("asked %s", asked)
			}
		}

		resolver := net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) { return w.resolver.Dial(), nil }}
		if got, err := resolver.LookupTXT(t.Context(), "www.example."); err != nil || !slices.Equal(got, []string{"text"}) {
			t.Errorf("LookupTXT: %q, %v", got, err)
		}
		if got, err := resolver.LookupMX(t.Context(), "www.example."); err != nil || len(got) != 1 || got[0].Pref != 10 {
			t.Errorf("LookupMX: %v, %v", got, err)
		}

		w.asked()
		w.resolver.config.HostBarred = func() bool { return true }
		msg, err := w.resolver.QueryOfPeer(t.Context(), message(t, "www.example", dnsmessage.TypeTXT))
		if got := described(t, msg); err != nil || got != "SERVFAIL" || len(w.asked()) > 0 {
			t.Errorf("with the host barred: %s, %v; asked %v", got, err, w.asked())
		}
	})
}

// described returns the code of a message and its first answer.
func described(t *testing.T, msg []byte) string {
	t.Helper()
	var answer Answer
	if err := answer.parse(msg); err != nil {
		t.Fatalf("%x: %v", msg, err)
	}
	if len(answer.Records) == 0 {
		return answer.Code
	}
	r := answer.Records[0]
	return answer.Code + " " + r.Type + " " + strconv.Itoa(int(r.TTL)) + " " + r.Data
}

// A lookupNetwork has a resolver of its own, and tells no server.
type lookupNetwork struct {
	host.Network
	lookUp func(network string) ([]netip.Addr, error)
}

func (n lookupNetwork) LookupNetIP(_ context.Context, network, _ string) ([]netip.Addr, error) {
	return n.lookUp(network)
}

// Where the host tells no server that is to be asked, its resolver answers for
// addresses; that it knows none of a family is an answer, that it fails is not.
func TestAsksTheResolverOfTheHost(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		missing := &net.DNSError{Err: "no such host", IsNotFound: true}
		four := []netip.Addr{netip.MustParseAddr("203.0.113.7")}
		for _, tt := range []struct {
			name    string
			network string // that is looked up, with what comes of it
			addrs   []netip.Addr
			err     error
			typ     dnsmessage.Type
			want    string
		}{
			{"address", "ip4", four, nil, a, "Success 203.0.113.7/5"},
			{"other family", "ip", four, nil, aaaa, "Success"},
			{"no such name", "", nil, missing, aaaa, "NameError"},
			{"only in /etc/hosts", "ip", four, &net.AddrError{Err: "no suitable address", Addr: "www.example"}, aaaa, "Success"},
			{"timeout", "", nil, &net.DNSError{Err: "timeout", IsTimeout: true}, aaaa, "ServerFailure"},
			{"broken", "", nil, errors.New("broken"), aaaa, "ServerFailure"},
			{"another type", "ip4", four, nil, dnsmessage.TypeTXT, "ServerFailure"},
		} {
			lookUp := lookupNetwork{w.node, func(network string) ([]netip.Addr, error) {
				if network == tt.network {
					return tt.addrs, nil
				}
				return nil, cmp.Or[error](tt.err, missing)
			}}
			for _, w.resolver.config.Network = range []host.Network{lookUp, tellingNetwork{lookUp, []string{"100.100.100.100"}}} {
				msg, err := w.resolver.QueryOfPeer(t.Context(), message(t, "www.example", tt.typ))
				if got := text(t, msg); err != nil || got != tt.want {
					t.Errorf("%s: %s, %v, want %s", tt.name, got, err, tt.want)
				}
			}
		}
	})
}
