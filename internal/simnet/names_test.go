package simnet

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"
)

func addrs(texts ...string) (as []netip.Addr) {
	for _, s := range texts {
		as = append(as, netip.MustParseAddr(s))
	}
	return as
}

func TestLookup(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		a := n.AddHost("a", HostConfig{Link: Conditions{Delay: 10 * time.Millisecond}})
		n.SetName("Dual.example.com.", addrs("192.0.2.1", "2001:db8::1")...)
		for _, tt := range []struct {
			network, name string
			want          []netip.Addr
			took          time.Duration
		}{
			{"ip", "dual.example.com", addrs("192.0.2.1", "2001:db8::1"), 20 * time.Millisecond},
			{"ip4", "DUAL.example.com", addrs("192.0.2.1"), 20 * time.Millisecond},
			{"ip6", "dual.example.com.", addrs("2001:db8::1"), 20 * time.Millisecond},
			{"ip", "::ffff:192.0.2.7", addrs("192.0.2.7"), 0},
			{"ip", "localhost", addrs("127.0.0.1", "::1"), 0},
			{"ip", "other.example.com", nil, 20 * time.Millisecond},
			{"ip6", "192.0.2.7", nil, 0},
		} {
			start := time.Now()
			got, err := a.LookupNetIP(t.Context(), tt.network, tt.name)
			if !slices.Equal(got, tt.want) || time.Since(start) != tt.took {
				t.Errorf("%s %s: %v after %v, want %v after %v", tt.network, tt.name, got, time.Since(start), tt.want, tt.took)
			}
			var de *net.DNSError
			if tt.want == nil && (!errors.As(err, &de) || !de.IsNotFound) {
				t.Errorf("%s: %v, want a DNSError that is IsNotFound", tt.name, err)
			}
		}
		n.SetName("dual.example.com")
		if got, err := a.LookupNetIP(t.Context(), "ip", "dual.example.com"); err == nil {
			t.Errorf("a name without addresses: %v", got)
		}
		a.SetLink(Conditions{Down: true})
		start := time.Now()
		_, err := a.LookupNetIP(t.Context(), "ip", "dual.example.com")
		var de *net.DNSError
		if !errors.As(err, &de) || !de.IsTimeout || time.Since(start) != 10*time.Second {
			t.Errorf("without an answer: %v after %v", err, time.Since(start))
		}
		a.Unplug()
		if _, err := a.LookupNetIP(t.Context(), "ip", "dual.example.com"); !errors.As(err, &de) || de.IsNotFound || !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("without network: %v", err)
		}
	})
}

// TestDialNames: IPv6 is tried first and IPv4 soon after, at once if there is no
// IPv6 here.
func TestDialNames(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		server := n.AddHost("server", HostConfig{})
		l, err := server.Listen(t.Context(), "tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		n.SetName("www.example.com", server.Addrs()...)
		n.SetName("broken6.example.com", server.Addr4(), netip.MustParseAddr("2001:db8:99::1"))
		dual := n.AddHost("dual", HostConfig{})
		only4, only6 := n.AddHost("only4", HostConfig{NoIPv6: true}), n.AddHost("only6", HostConfig{NoIPv4: true})
		for _, tt := range []struct {
			from *Host
			name string
			six  bool
			took time.Duration
		}{
			{dual, "www.example.com:80", true, 0},
			{only4, "www.example.com:80", false, 0},
			{only6, "www.example.com:80", true, 0},
			{dual, "broken6.example.com:80", false, fallbackDelay},
		} {
			start := time.Now()
			c, err := tt.from.Dial(t.Context(), "tcp", tt.name)
			if err != nil {
				t.Errorf("%s from %s: %v", tt.name, tt.from.name, err)
				continue
			}
			six := c.(*tcpConn).tuple.remote.Addr().Is6()
			if six != tt.six || time.Since(start) != tt.took {
				t.Errorf("%s from %s: IPv6 %v after %v, want %v after %v", tt.name, tt.from.name, six, time.Since(start), tt.six, tt.took)
			}
			c.Close()
		}
		for _, bad := range []string{"www.example.com:81", "nobody.example.com:80", "www.example.com", "www.example.com:http"} {
			if c, err := dual.Dial(t.Context(), "tcp", bad); err == nil {
				t.Errorf("%s: connected to %v", bad, c.RemoteAddr())
			}
		}
		if _, err := dual.Dial(t.Context(), "unix", "/x"); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("network unix: %v", err)
		}
	})
}

// TestNAT64: a host without IPv4 reaches IPv4 hosts by UDP, TCP, ICMP and name.
func TestNAT64(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		mobile := n.AddRouter("mobile", RouterConfig{NAT64: true, Link: Conditions{Delay: 5 * time.Millisecond}})
		phone := mobile.AddHost("phone", HostConfig{})
		old := n.AddHost("old", HostConfig{NoIPv6: true})
		n.SetName("old.example.com", old.Addr4())
		if phone.Addr4().IsValid() || mobile.Gateway().IsValid() {
			t.Fatalf("IPv4 addresses %v and %v inside", phone.Addr4(), mobile.Gateway())
		}
		want := []netip.Addr{old.Addr4(), embed(old.Addr4())}
		if got, err := phone.LookupNetIP(t.Context(), "ip", "old.example.com"); err != nil || !slices.Equal(got, want) {
			t.Errorf("old.example.com is %v (%v), want %v", got, err, want)
		}
		if got, err := phone.LookupNetIP(t.Context(), "ip6", "ipv4only.arpa"); err != nil || !slices.Equal(got, addrs("64:ff9b::c000:aa", "64:ff9b::c000:ab")) {
			t.Errorf("ipv4only.arpa is %v (%v)", got, err)
		}
		s, peer := listen(t, phone, "udp6", 5000), listen4(t, old)
		s.send(netip.AddrPortFrom(embed(old.Addr4()), peer.conn.port), "hello")
		from := peer.expect("hello")
		if from.Addr() != mobile.Outer() {
			t.Errorf("from %v, want %v", from, mobile.Outer())
		}
		peer.send(from, "answer")
		if from := s.expect("answer"); from != netip.AddrPortFrom(embed(old.Addr4()), peer.conn.port) {
			t.Errorf("answer from %v", from)
		}
		if took, err := phone.Echo(t.Context(), embed(old.Addr4()), nil); err != nil || took != 10*time.Millisecond {
			t.Errorf("echo: %v, %v", took, err)
		}
		c := connect(t, phone, old, "old.example.com:80")
		transfer(t, c.client, c.server, 100000)
		transfer(t, c.server, c.client, 100000)
		c.close()
		if r, err := phone.DefaultRoute(); err != nil || r.Gateway != gateway6 || r.Source != phone.Addr6() {
			t.Errorf("default route %v, %v", r, err)
		}
		// real IPv6 is not translated
		six := n.AddHost("six", HostConfig{NoIPv4: true})
		s6 := listen(t, six, "udp6", 0)
		s.send(s6.addr(), "native")
		if from := s6.expect("native"); from != s.addr() {
			t.Errorf("from %v, want %v", from, s.addr())
		}
	})
}

// TestIPv6BehindRouters: public addresses inside, also two routers deep.
func TestIPv6BehindRouters(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		outer := n.AddRouter("outer", RouterConfig{IPv6: true})
		inner := outer.AddRouter("inner", RouterConfig{IPv6: true, LAN: netip.MustParsePrefix("10.0.0.0/24")})
		a, b, c := outer.AddHost("a", HostConfig{}), inner.AddHost("b", HostConfig{}), n.AddHost("c", HostConfig{})
		sa, sb, sc := listen(t, a, "udp6", 0), listen(t, b, "udp6", 0), listen(t, c, "udp6", 0)
		all := []*socket{sa, sb, sc}
		for _, from := range all {
			for _, to := range all {
				from.send(to.addr(), from.host.name)
				if got := to.expect(from.host.name); got.Addr() != from.addr().Addr() && got.Addr() != loopback(true) {
					t.Errorf("%s sees %s as %v", to.host.name, from.host.name, got)
				}
			}
		}
	})
}
