package node_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed94491740/tsnode/dataplane/tun"
	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/dns"
	"github.com/seed94491740/tsnode/netstack"
	"github.com/seed94491740/tsnode/node"
	"github.com/seed94491740/tsnode/packet"
)

// A machine is the operating system behind the TUN device of a node, played over
// the other end of a socket (VPN-44).
type machine struct {
	t    *testing.T
	end  *os.File
	addr netip.Addr // of the node, IPv4
}

// newMachine returns a node with a TUN device, not yet started, and its machine.
func newMachine(t *testing.T, tailnet *devnet.Net, name string) (*node.Node, *machine) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	own, theirs := os.NewFile(uintptr(fds[0]), "own"), os.NewFile(uintptr(fds[1]), "theirs")
	t.Cleanup(func() { own.Close(); theirs.Close() })
	n := newNode(t, tailnet, name)
	n.TUN = tun.On(own)
	return n, &machine{t: t, end: theirs}
}

// ask sends a packet, again and again, until one comes that is an answer.
func (m *machine) ask(pkt []byte, answers func(h *packet.Header, pkt []byte) bool) {
	m.t.Helper()
	const again = 200 * time.Millisecond // peers may not have met yet
	b := make([]byte, 1<<16)
	for began := time.Now(); time.Since(began) < patience; {
		if _, err := m.end.Write(pkt); err != nil {
			m.t.Fatal(err)
		}
		m.end.SetReadDeadline(time.Now().Add(again))
		for {
			n, err := m.end.Read(b)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				m.t.Fatal(err)
			}
			var h packet.Header
			if h.Parse(b[:n]); answers(&h, b[:n]) {
				return
			}
		}
	}
	m.t.Fatal("no answer")
}

// datagram returns a packet with a UDP datagram.
func datagram(t *testing.T, from, to netip.AddrPort, payload []byte) []byte {
	t.Helper()
	b, err := packet.AppendIP(nil, from.Addr(), to.Addr(), packet.UDP, 8+len(payload))
	if err != nil {
		t.Fatal(err)
	}
	b = binary.BigEndian.AppendUint16(b, from.Port())
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	b = append(append(b, 0, 0), payload...)
	checksum(b)
	return b
}

// checksum forms the transport checksum of a packet.
func checksum(b []byte) {
	var h packet.Header
	h.Parse(b)
	h.SetChecksum(b)
}

// intact reports whether the transport checksum of a packet is right.
func intact(b []byte) bool {
	again := bytes.Clone(b)
	checksum(again)
	return bytes.Equal(again, b)
}

// VT-10: a node with a TUN device carries the packets of its machine to a peer with
// a stack, both ways, UDP and pings; the machine's questions to the service address
// are answered.
func TestTUN(t *testing.T) {
	t.Parallel()
	tailnet := startDevnet(t, devnet.Config{})
	a, m := newMachine(t, tailnet, "machine")
	b := newNode(t, tailnet, "stack")
	up(t, a)
	up(t, b)
	sees(t, a, "stack")
	sees(t, b, "machine")
	m.addr, _ = a.TailscaleIPs()
	to, _ := b.TailscaleIPs()

	t.Run("UDP", func(t *testing.T) { m.t = t; m.testUDP(b, to) })
	t.Run("ping", func(t *testing.T) { m.t = t; m.testPing(to) })
	t.Run("DNS", func(t *testing.T) { m.t = t; m.testDNS(a, to) })
	t.Run("services", func(t *testing.T) { m.t = t; m.testServices(a, b) })
	t.Run("no stack", func(t *testing.T) { testNoStack(t, a) })
	if s := a.DeviceStats(); s.Read < 3 || s.Written < 3 || s.Malformed+s.Refused > 0 {
		t.Errorf("counted %+v", s)
	}
}

func (m *machine) testUDP(b *node.Node, to netip.Addr) {
	pc, err := b.ListenPacket("udp", ":7")
	if err != nil {
		m.t.Fatal(err)
	}
	defer pc.Close()
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo(buf[:n], from)
		}
	}()
	own, peer := netip.AddrPortFrom(m.addr, 4000), netip.AddrPortFrom(to, 7)
	m.ask(datagram(m.t, own, peer, []byte("over and back")), func(h *packet.Header, pkt []byte) bool {
		return h.Proto == packet.UDP && h.Src == peer && h.Dst == own && bytes.HasSuffix(pkt, []byte("over and back")) && intact(pkt)
	})
}

func (m *machine) testPing(to netip.Addr) {
	message := []byte{8, 0, 0, 0, 0, 1, 0, 1, 'p', 'i', 'n', 'g'} // echo request; RFC 792
	binary.BigEndian.PutUint16(message[2:], ^packet.Sum(message, 0))
	b, err := packet.AppendIP(nil, m.addr, to, packet.ICMPv4, len(message))
	if err != nil {
		m.t.Fatal(err)
	}
	m.ask(append(b, message...), func(h *packet.Header, pkt []byte) bool {
		return h.IsEchoReply(pkt) && h.Src.Addr() == to && bytes.HasSuffix(pkt, message[4:])
	})
}

func (m *machine) testDNS(a *node.Node, want netip.Addr) {
	own, service := netip.AddrPortFrom(m.addr, 4001), netip.AddrPortFrom(dns.ServiceIPv4, 53)
	m.ask(datagram(m.t, own, service, question(m.t, a.Status().Peers[0].Name+".")), func(h *packet.Header, pkt []byte) bool {
		if h.Proto != packet.UDP || h.Src != service || h.Dst != own {
			return false
		}
		if got := answerOf(m.t, pkt[h.Transport+8:]); got != want || !intact(pkt) {
			m.t.Errorf("answer %v, want %v; checksum %v", got, want, intact(pkt))
		}
		return true
	})
}

// testServices has a TCP of its own be the machine's: it asks the service address
// for a name, and the peer finds the machine's peerAPI beside it (SVC-81, SVC-83).
func (m *machine) testServices(a, b *node.Node) {
	stack, err := netstack.New(netstack.Config{})
	if err != nil {
		m.t.Fatal(err)
	}
	defer stack.Close()
	if err := stack.SetAddresses([]netip.Addr{m.addr}); err != nil {
		m.t.Fatal(err)
	}
	defer m.carry(stack.Links()[0])()
	c, err := stack.DialTCP(within(m.t, patience), netip.Addr{}, netip.AddrPortFrom(dns.ServiceIPv4, 53))
	if err != nil {
		m.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	q := question(m.t, a.Status().Peers[0].Name+".")
	if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...)); err != nil {
		m.t.Fatal(err)
	}
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		m.t.Fatal(err)
	}
	answer := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, answer); err != nil {
		m.t.Fatal(err)
	}
	if got, _ := b.TailscaleIPs(); answerOf(m.t, answer) != got {
		m.t.Errorf("answer by TCP %v, want %v", answerOf(m.t, answer), got)
	}
	if _, err := b.Ping(within(m.t, patience), "machine", node.PingPeerAPI); err != nil {
		m.t.Errorf("ping of the peerAPI: %v", err)
	}
	if refused, err := stack.DialTCP(within(m.t, patience), netip.Addr{}, netip.AddrPortFrom(dns.ServiceIPv4, 80)); !errors.Is(err, syscall.ECONNREFUSED) {
		m.t.Errorf("another port of the service address: %v, %v", refused, err)
	}
}

// carry carries packets between the machine's end of the device and a stack, until
// the function that it returns is called.
func (m *machine) carry(link *netstack.Link) (stop func()) {
	var both sync.WaitGroup
	done := make(chan struct{})
	detach := link.Attach()
	m.end.SetReadDeadline(time.Time{})
	both.Go(func() {
		b := make([]byte, 1<<16)
		for {
			n, err := m.end.Read(b)
			if err != nil {
				return
			}
			link.Inject(b[:n])
		}
	})
	both.Go(func() {
		batch := make([]packet.Outbound, 16)
		for {
			select {
			case <-done:
				return
			case <-link.Ready():
			}
			for n := link.Next(batch); n > 0; n = link.Next(batch) {
				for _, p := range batch[:n] {
					b := bytes.Join(append([][]byte{p.Head}, p.Body...), nil)
					if p.Partial {
						checksum(b)
					}
					m.end.Write(b)
				}
			}
		}
	})
	return func() {
		detach()
		close(done)
		m.end.SetReadDeadline(time.Unix(1, 0))
		both.Wait()
	}
}

// A node without a stack says so, of all that would need it.
func testNoStack(t *testing.T, a *node.Node) {
	ctx := within(t, patience)
	_, dialErr := a.Dial(ctx, "tcp", "stack:7")
	_, udpErr := a.Dial(ctx, "udp", "stack:7")
	_, listenErr := a.Listen("tcp", ":7")
	_, packetErr := a.ListenPacket("udp", ":7")
	_, icmpErr := a.ListenPacket("ip4:icmp", "")
	_, pendingErr := a.ListenPending("tcp", ":7")
	_, pingErr := a.Ping(ctx, "stack", node.PingICMP)
	for what, err := range map[string]error{
		"Dial": dialErr, "Dial of UDP": udpErr, "Listen": listenErr, "ListenPacket": packetErr,
		"raw socket": icmpErr, "ListenPending": pendingErr, "Ping": pingErr,
	} {
		if !errors.Is(err, node.ErrNoStack) {
			t.Errorf("%s: %v, want ErrNoStack", what, err)
		}
	}
	if _, err := a.Ping(ctx, "stack", node.PingTSMP); err != nil {
		t.Errorf("ping inside the tunnel: %v", err)
	}
}

// VPN-43: a device that is gone ends the node, with an error that says so. What is
// no device is told by Start.
func TestTUNGone(t *testing.T) {
	t.Parallel()
	tailnet := startDevnet(t, devnet.Config{})
	n, m := newMachine(t, tailnet, "machine")
	events := n.Events(within(t, patience))
	up(t, n)
	m.end.Close()
	for e := range events {
		if stopped, ok := e.(node.Stopped); ok {
			if !errors.Is(stopped.Err, node.ErrDeviceGone) {
				t.Errorf("the node has stopped: %v", stopped.Err)
			}
			break
		}
	}
	if _, err := n.Up(within(t, patience)); !errors.Is(err, node.ErrDeviceGone) {
		t.Errorf("Up: %v, want ErrDeviceGone", err)
	}

	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	bad := newNode(t, tailnet, "bad")
	bad.TUN = tun.On(null)
	if err := bad.Start(); err == nil {
		t.Error("a node starts on /dev/null")
	}
}
