package ground

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long something that must come may take.
const patience = 3 * time.Second

// silence is how long something that must not come is waited for.
const silence = 200 * time.Millisecond

// newHost adds a site with one host.
func newHost(t *testing.T, g *Ground, nat NAT) (*Site, *Host) {
	t.Helper()
	s, err := g.Site(nat)
	if err != nil {
		t.Fatal(err)
	}
	h, err := s.Host("host")
	if err != nil {
		t.Fatal(err)
	}
	return s, h
}

// udp opens a UDP socket in a namespace; port 0 means any.
func udp(t *testing.T, n *Namespace, port int) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	err := n.Do(func() (err error) {
		c, err = net.ListenUDP("udp4", &net.UDPAddr{Port: port})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// port returns a socket's own port.
func port(c *net.UDPConn) uint16 { return c.LocalAddr().(*net.UDPAddr).AddrPort().Port() }

// receive returns the sender of the next datagram; not valid if none comes.
func receive(c *net.UDPConn, wait time.Duration) netip.AddrPort {
	c.SetReadDeadline(time.Now().Add(wait))
	_, from, err := c.ReadFromUDPAddrPort(make([]byte, 2000))
	if err != nil {
		return netip.AddrPort{}
	}
	return from
}

func send(t *testing.T, c *net.UDPConn, to netip.AddrPort) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort([]byte("hello"), to); err != nil {
		t.Fatal(err)
	}
}

// Each kind of gateway maps and filters UDP as it says.
func TestGatewaysTranslate(t *testing.T) {
	for _, test := range []struct {
		nat                    NAT
		sameMapping, keepsPort bool
		open                   bool // to senders never sent to
	}{
		{Public, true, true, true},
		{FullCone, true, true, true},
		{Easy, true, true, false},
		{Symmetric, false, false, false},
		{Mapped, false, false, false},
	} {
		t.Run(test.nat.String(), func(t *testing.T) {
			g := New(t)
			s, h := newHost(t, g, test.nat)
			inside := udp(t, h.Namespace, 0)
			servers := []*net.UDPConn{udp(t, g.Internet, 3478), udp(t, g.Internet, 3479)}
			var seen []netip.AddrPort
			for _, server := range servers {
				send(t, inside, netip.AddrPortFrom(ServerAddr, port(server)))
				from := receive(server, patience)
				if want := s.Outside(); test.nat != Public && from.Addr() != want {
					t.Errorf("seen from %v, want the gateway's %v", from, want)
				}
				seen = append(seen, from)
				send(t, server, from)
				if got := receive(inside, patience); !got.IsValid() {
					t.Errorf("no answer comes back to %v", from)
				}
			}
			if same := seen[0] == seen[1]; same != test.sameMapping {
				t.Errorf("seen from %v", seen)
			}
			if kept := seen[0].Port() == port(inside); kept != test.keepsPort {
				t.Errorf("own port %d seen as %v", port(inside), seen[0])
			}
			send(t, udp(t, g.Internet, 0), seen[0])
			if got := receive(inside, silence); got.IsValid() != test.open {
				t.Errorf("a datagram of a stranger came from %v", got)
			}
		})
	}
}

// Two hosts behind gateways that keep ports reach each other once both send,
// though the first datagram comes before its way is open.
func TestHolePunching(t *testing.T) {
	g := New(t)
	siteA, a := newHost(t, g, Easy)
	siteB, b := newHost(t, g, Easy)
	atA, atB := udp(t, a.Namespace, 41641), udp(t, b.Namespace, 41642)
	send(t, atA, netip.AddrPortFrom(siteB.Outside(), 41642))
	if got := receive(atB, silence); got.IsValid() {
		t.Fatalf("a datagram came through from %v", got)
	}
	send(t, atB, netip.AddrPortFrom(siteA.Outside(), 41641))
	if got, want := receive(atA, patience), netip.AddrPortFrom(siteB.Outside(), 41642); got != want {
		t.Errorf("from %v, want %v", got, want)
	}
	send(t, atA, netip.AddrPortFrom(siteB.Outside(), 41642))
	if got, want := receive(atB, patience), netip.AddrPortFrom(siteA.Outside(), 41641); got != want {
		t.Errorf("from %v, want %v", got, want)
	}
}

// A host asks its gateway for a port, and is reached there by anybody.
func TestPortMapping(t *testing.T) {
	g := New(t)
	s, h := newHost(t, g, Mapped)
	client, inside := udp(t, h.Namespace, 0), udp(t, h.Namespace, 41641)
	ask := func(request []byte) []byte {
		t.Helper()
		client.WriteToUDPAddrPort(request, netip.AddrPortFrom(s.inside(), pmpPort))
		client.SetReadDeadline(time.Now().Add(patience))
		buf := make([]byte, 100)
		n, err := client.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return buf[:n]
	}
	if got := ask([]byte{0, pmpExternalAddress}); len(got) != 12 || netip.AddrFrom4([4]byte(got[8:])) != s.Outside() {
		t.Errorf("external address: % x, want that of %v", got, s.Outside())
	}
	request := []byte{0, pmpMapUDP, 0, 0, 0, 0, 0, 0, 0, 0, 0x1c, 0x20}
	binary.BigEndian.PutUint16(request[4:], 41641)
	got := ask(request)
	if len(got) != 16 || got[3] != pmpOK {
		t.Fatalf("map: % x", got)
	}
	outside := netip.AddrPortFrom(s.Outside(), binary.BigEndian.Uint16(got[10:]))
	stranger := udp(t, g.Internet, 0)
	send(t, stranger, outside)
	from := receive(inside, patience)
	if want := netip.AddrPortFrom(ServerAddr, port(stranger)); from != want {
		t.Fatalf("a datagram to the mapped %v came from %v, want %v", outside, from, want)
	}
	send(t, inside, from)
	if from := receive(stranger, patience); from != outside {
		t.Errorf("the answer came from %v, want %v", from, outside)
	}
	clear(request[8:]) // no lifetime: delete
	ask(request)
	send(t, udp(t, g.Internet, 0), outside)
	if from := receive(inside, silence); from.IsValid() {
		t.Errorf("a datagram came from %v after the mapping was deleted", from)
	}
	if got := ask([]byte{2, 0}); got[3] != pmpBadVersion {
		t.Errorf("a PCP request: % x, want result %d", got, pmpBadVersion)
	}
	if got := ask([]byte{0, 9}); got[3] != pmpBadOpcode {
		t.Errorf("an unknown opcode: % x, want result %d", got, pmpBadOpcode)
	}
}

// UDP is blocked and let through again; TCP goes on, to the core and on a LAN.
func TestBlockUDP(t *testing.T) {
	g := New(t)
	s, a := newHost(t, g, Easy)
	b, err := s.Host("neighbour")
	if err != nil {
		t.Fatal(err)
	}
	server, neighbour, inside := udp(t, g.Internet, 3478), udp(t, b.Namespace, 3478), udp(t, a.Namespace, 0)
	l, err := g.Internet.Network().Listen(context.Background(), "tcp", netip.AddrPortFrom(ServerAddr, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, blocked := range []bool{false, true, false} {
		if err := s.BlockUDP(blocked); err != nil {
			t.Fatal(err)
		}
		wait := patience
		if blocked {
			wait = silence
		}
		send(t, inside, netip.AddrPortFrom(ServerAddr, 3478))
		if got := receive(server, wait); got.IsValid() == blocked {
			t.Errorf("blocked %v: the core hears from %v", blocked, got)
		}
		send(t, inside, netip.AddrPortFrom(b.Addr(), 3478))
		if got := receive(neighbour, wait); got.IsValid() == blocked {
			t.Errorf("blocked %v: the neighbour hears from %v", blocked, got)
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		c, err := a.Network().Dial(ctx, "tcp", l.Addr().String())
		cancel()
		if err != nil {
			t.Fatalf("blocked %v: %v", blocked, err)
		}
		c.Close()
	}
}

// A host's address changes, then it moves to another home.
func TestHostMoves(t *testing.T) {
	g := New(t)
	first, h := newHost(t, g, Easy)
	second, _ := newHost(t, g, Public)
	server := udp(t, g.Internet, 3478)
	seen := func() netip.AddrPort {
		send(t, udp(t, h.Namespace, 0), netip.AddrPortFrom(ServerAddr, 3478))
		return receive(server, patience)
	}
	was := h.Addr()
	if got := seen(); got.Addr() != first.Outside() {
		t.Errorf("seen at %v", got)
	}
	if err := h.Renumber(); err != nil {
		t.Fatal(err)
	}
	if got := seen(); got.Addr() != first.Outside() || h.Addr() == was || !first.LAN().Contains(h.Addr()) {
		t.Errorf("seen at %v, as %v inside after %v", got, h.Addr(), was)
	}
	if err := h.Move(second); err != nil {
		t.Fatal(err)
	}
	if got := seen(); got.Addr() != h.Addr() || !second.LAN().Contains(h.Addr()) {
		t.Errorf("seen at %v, is %v", got, h.Addr())
	}
	third, _ := newHost(t, g, Easy)
	if err := h.Move(third); err != nil {
		t.Fatal(err)
	}
	fourth, _ := newHost(t, g, Easy)
	was = h.Addr()
	if err := h.MoveUnseen(fourth); err != nil {
		t.Fatal(err)
	}
	if got := seen(); got.Addr() != fourth.Outside() || h.Addr() != was {
		t.Errorf("seen at %v, as %v inside after %v", got, h.Addr(), was)
	}
	all, err := h.Network().Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range all {
		names = append(names, i.Name)
	}
	if !slices.Equal(names, []string{"lo", hostInterface}) {
		t.Errorf("interfaces %q", names)
	}
}

// A link delays, loses and reorders as it is told.
func TestLinkConditions(t *testing.T) {
	g := New(t)
	s, h := newHost(t, g, Public)
	server, inside := udp(t, g.Internet, 3478), udp(t, h.Namespace, 0)
	exchange := func(count int) (arrived []uint16, slowest time.Duration) {
		began := time.Now()
		for i := range count {
			inside.WriteToUDPAddrPort(binary.BigEndian.AppendUint16(nil, uint16(i)), netip.AddrPortFrom(ServerAddr, 3478))
		}
		buf := make([]byte, 10)
		for len(arrived) < count {
			server.SetReadDeadline(time.Now().Add(time.Second)) // a busy machine is slow
			if _, err := server.Read(buf); err != nil {
				break
			}
			arrived = append(arrived, binary.BigEndian.Uint16(buf))
			slowest = time.Since(began)
		}
		return arrived, slowest
	}
	// The kernel asks for a neighbour's address once a second; until it has the
	// answer, what is sent waits, and that is not the link's delay.
	send(t, inside, netip.AddrPortFrom(ServerAddr, 3478))
	if !receive(server, patience).IsValid() {
		t.Fatal("the first datagram has not arrived")
	}
	s.Link.Set(Conditions{Delay: 50 * time.Millisecond, Jitter: 10 * time.Millisecond})
	if got, slowest := exchange(100); len(got) != 100 || !slices.IsSorted(got) || slowest < 50*time.Millisecond {
		t.Errorf("delay: %v after %v", got, slowest)
	}
	s.Link.Set(Conditions{Loss: 0.5})
	if got, _ := exchange(100); len(got) < 25 || len(got) > 75 || !slices.IsSorted(got) {
		t.Errorf("loss: %v", got)
	}
	s.Link.Set(Conditions{Reorder: 0.2, ReorderBy: 20 * time.Millisecond})
	if got, _ := exchange(100); len(got) != 100 || slices.IsSorted(got) {
		t.Errorf("reordering: %v", got)
	}
	s.Link.Set(Conditions{NoUDP: true})
	if got, _ := exchange(10); len(got) != 0 {
		t.Errorf("no UDP: %v", got)
	}
}
