package node_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/node"
)

// question returns a DNS message that asks for the IPv4 address of a name.
func question(t testing.TB, name string) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// answerOf returns the first address in an answer.
func answerOf(t testing.TB, b []byte) netip.Addr {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(b); err != nil || m.ID != 7 || len(m.Answers) != 1 {
		t.Fatalf("answer %+v, %v", m, err)
	}
	return netip.AddrFrom4(m.Answers[0].Body.(*dnsmessage.AResource).A)
}

// dialService connects to a service address.
func dialService(t testing.TB, n *node.Node, network, addr string) net.Conn {
	t.Helper()
	ctx := within(t, patience)
	c, err := n.Dial(ctx, network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	deadline, _ := ctx.Deadline()
	c.SetDeadline(deadline)
	return c
}

// SVC-81: Dial reaches the node's DNS on the service addresses, over UDP and TCP;
// so do sockets that are not connected. Nothing else is there.
func TestSVC81DialTheServiceAddresses(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	n := newNode(t, tailnet, "a")
	up(t, n)
	ip4, _ := n.TailscaleIPs()
	ask := question(t, "a."+tailnet.Domain()+".")
	for _, addr := range []string{"100.100.100.100:53", "[fd7a:115c:a1e0::53]:53"} {
		c := dialService(t, n, "udp", addr)
		if _, err := c.Write(ask); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 512)
		size, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		if got := answerOf(t, b[:size]); got != ip4 {
			t.Errorf("%s over UDP: %v, want %v", addr, got, ip4)
		}
		c = dialService(t, n, "tcp", addr)
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(ask))), ask...)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, b[:2]); err != nil {
			t.Fatal(err)
		}
		b = b[:binary.BigEndian.Uint16(b)]
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatal(err)
		}
		if got := answerOf(t, b); got != ip4 {
			t.Errorf("%s over TCP: %v, want %v", addr, got, ip4)
		}
	}
	if c, err := n.Dial(within(t, patience), "tcp", "100.100.100.100:80"); !errors.Is(err, node.ErrRefused) {
		t.Errorf("port 80: %v, %v, want ErrRefused", c, err)
	}
}

// SVC-81: a socket that is not connected asks, too.
func TestSVC81AskFromAPacketConn(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	n := newNode(t, tailnet, "a")
	up(t, n)
	ip4, _ := n.TailscaleIPs()
	pc, err := n.ListenPacket("udp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	dialService(t, n, "udp", "100.100.100.100:53") // it is open from now on
	if _, err := pc.WriteTo(question(t, "a."+tailnet.Domain()+"."), net.UDPAddrFromAddrPort(netip.MustParseAddrPort("100.100.100.100:53"))); err != nil {
		t.Fatal(err)
	}
	ctx := within(t, patience)
	deadline, _ := ctx.Deadline()
	pc.SetReadDeadline(deadline)
	b := make([]byte, 512)
	size, _, err := pc.ReadFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	if got := answerOf(t, b[:size]); got != ip4 {
		t.Errorf("got %v, want %v", got, ip4)
	}
}

// splitDNS makes server answer every question for an address below
// corp.example, and the tailnet send those questions there.
func splitDNS(t testing.TB, tailnet *devnet.Net, server *node.Node, addr netip.Addr) {
	t.Helper()
	pc, err := server.ListenPacket("udp", ":53")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		b := make([]byte, 4096)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m.Response, m.Additionals = true, nil
			if q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60},
					Body:   &dnsmessage.AResource{A: addr.As4()},
				}}
			}
			if out, err := m.Pack(); err == nil {
				pc.WriteTo(out, from)
			}
		}
	}()
	ip4, _ := server.TailscaleIPs()
	err = tailnet.SetDNS(netmap.DNSConfig{
		Proxied: true, Domains: []string{tailnet.Domain(), "corp.example"},
		Routes: map[string][]netmap.Resolver{tailnet.Domain(): nil, "corp.example": {{Addr: ip4.String()}}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// awaitRoutes waits until a node uses the split DNS.
func awaitRoutes(t testing.TB, n *node.Node) {
	t.Helper()
	ctx := within(t, patience)
	for n.DNSStatus().Routes["corp.example"] == nil {
		select {
		case <-ctx.Done():
			t.Fatalf("%s does not use the tailnet's split DNS: %+v", n.Hostname, n.DNSStatus())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Split DNS in the library (SVC-76, SVC-79): a name below a suffix of the
// tailnet's routes is asked of a server in the tailnet, through the tunnel, by
// Dial and by Resolver.
func TestSplitDNSThroughTheTunnel(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	a, b, ignoring := newNode(t, tailnet, "a"), newNode(t, tailnet, "b"), newNode(t, tailnet, "c")
	ignoring.IgnoreDNS = true
	up(t, b)
	ip4, _ := b.TailscaleIPs()
	serveEcho(t, b, 7)
	splitDNS(t, tailnet, b, ip4)
	up(t, a)
	up(t, ignoring)
	awaitRoutes(t, a)
	for _, name := range []string{"wiki.corp.example:7", "wiki:7"} { // in full, and with the search domain
		c, err := a.Dial(within(t, patience), "tcp", name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		defer c.Close()
		if got := c.RemoteAddr().(*net.TCPAddr).AddrPort(); got != netip.AddrPortFrom(ip4, 7) {
			t.Errorf("%s leads to %v", name, got)
		}
	}
	if addrs, err := a.Resolver().LookupHost(within(t, patience), "wiki.corp.example."); err != nil || !slices.Equal(addrs, []string{ip4.String()}) {
		t.Errorf("Resolver: %v, %v", addrs, err)
	}
	answer, err := a.QueryDNS(within(t, patience), "wiki.corp.example", "A")
	if err != nil || answer.Code != "NOERROR" || answer.Route != "corp.example" || len(answer.Records) != 1 || answer.Records[0].Data != ip4.String() {
		t.Errorf("QueryDNS: %+v, %v", answer, err)
	}
	if _, err := a.Dial(within(t, patience), "tcp", "nobody."+tailnet.Domain()+":7"); !errors.Is(err, node.ErrNameNotFound) {
		t.Errorf("a name that the tailnet says does not exist: %v", err)
	}
	if d := ignoring.DNSStatus(); len(d.Routes)+len(d.Search) != 0 {
		t.Errorf("a node that ignores the tailnet's DNS has %+v", d)
	}
	if _, err := ignoring.Resolver().LookupHost(within(t, patience), "b."+tailnet.Domain()+"."); err != nil {
		t.Errorf("a node that ignores the tailnet's DNS: %v", err)
	}
}

// A lookup waits for the node, within its context, and a node that is not
// started has nothing to say.
func TestResolverOfANodeThatDoesNotRun(t *testing.T) {
	n := &node.Node{ControlURL: "http://127.0.0.1:1", Hostname: "a", Logger: testLog(t, "a")}
	defer n.Close()
	if d := n.DNSStatus(); d.MagicDNS || d.Suffix != "" {
		t.Errorf("%+v", d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.QueryDNS(ctx, "x.example", "A"); !errors.Is(err, node.ErrNotRunning) {
		t.Errorf("got %v, want ErrNotRunning", err)
	}
}
