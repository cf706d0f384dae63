package node_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/node"
)

// oneWay lets the asker open flows to the answerer, and nothing else.
const oneWay = `{"acls": [{"action": "accept", "src": ["tag:asker"], "dst": ["tag:answerer:*"]}]}`

// tagged is newNode with a tag.
func tagged(t *testing.T, tailnet *devnet.Net, name string) *node.Node {
	n := newNode(t, tailnet, name)
	n.AuthKey = tailnet.AuthKey(devnet.KeyOptions{Tags: []string{"tag:" + name}})
	up(t, n)
	return n
}

// Acceptance item 3, SVC-19: under a policy that lets one node open flows to another
// and nothing back, what it asks is answered: a DNS client through its SOCKS5 proxy,
// a datagram and a connection of the library. Answers pass as replies to known flows
// only: the other node's own flows do not get in, nor does a datagram from a port
// that was not asked.
func TestRepliesPassARestrictivePolicy(t *testing.T) {
	t.Parallel()
	tailnet := startDevnet(t, devnet.Config{Policy: []byte(oneWay)})
	asker, answerer := tagged(t, tailnet, "asker"), tagged(t, tailnet, "answerer")
	sees(t, asker, "answerer")
	sees(t, answerer, "asker")
	dns := netip.AddrPortFrom(ip4Of(answerer), 53)
	serveFromTwoPorts(t, answerer)
	serveEcho(t, answerer, 7)
	unasked := listenUnasked(t, asker)

	t.Run("SOCKS5", func(t *testing.T) {
		set := forwards(t, asker, "-D 0")
		askThroughSOCKS(t, listens(t, set, 0), dns)
	})
	t.Run("UDP", func(t *testing.T) {
		pc, err := asker.ListenPacket("udp", ":0")
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		for range 3 { // the answers of the other port would come first
			if _, from := askUntilAnswered(t, pc, net.UDPAddrFromAddrPort(dns), []byte("question")); from.String() != dns.String() {
				t.Errorf("an answer came from %v, want %v only", from, dns)
			}
		}
	})
	t.Run("TCP", func(t *testing.T) {
		if err := echo(asker, netip.AddrPortFrom(dns.Addr(), 7).String(), 100_000); err != nil {
			t.Error(err)
		}
	})
	t.Run("unasked", func(t *testing.T) { unasked.try(t, tailnet, answerer) })
}

// serveFromTwoPorts answers each datagram to port 53 first from port 54, then from
// 53.
func serveFromTwoPorts(t *testing.T, n *node.Node) {
	var ports [2]net.PacketConn
	for i := range ports {
		pc, err := n.ListenPacket("udp", net.JoinHostPort("", []string{"53", "54"}[i]))
		if err != nil {
			t.Fatal(err)
		}
		ports[i] = pc
	}
	go func() {
		for b := make([]byte, 2048); ; {
			n, from, err := ports[0].ReadFrom(b)
			if err != nil {
				return
			}
			ports[1].WriteTo([]byte("not asked"), from)
			ports[0].WriteTo(append([]byte("re: "), b[:n]...), from)
		}
	}()
}

// askUntilAnswered sends a datagram again and again, as any may be lost, and returns
// the first that comes.
func askUntilAnswered(t *testing.T, pc net.PacketConn, to net.Addr, datagram []byte) ([]byte, net.Addr) {
	t.Helper()
	b := make([]byte, 2048)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if _, err := pc.WriteTo(datagram, to); err != nil {
			t.Fatal(err)
		}
		pc.SetReadDeadline(time.Now().Add(time.Second))
		if n, from, err := pc.ReadFrom(b); err == nil {
			return b[:n], from
		}
	}
	t.Fatalf("no answer from %v", to)
	return nil, nil
}

// askThroughSOCKS asks a UDP server by UDP ASSOCIATE (RFC 1928 section 7).
func askThroughSOCKS(t *testing.T, proxy string, to netip.AddrPort) {
	c, err := net.Dial("tcp", proxy)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	io.WriteString(c, "\x05\x01\x00")                             // no authentication
	io.WriteString(c, "\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00") // associate
	answer := make([]byte, 2+10)
	if _, err := io.ReadFull(c, answer); err != nil || answer[1] != 0 || answer[3] != 0 {
		t.Fatalf("the proxy answers %x, %v", answer, err)
	}
	relay := netip.AddrPortFrom(netip.AddrFrom4([4]byte(answer[6:10])), binary.BigEndian.Uint16(answer[10:]))
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	header := binary.BigEndian.AppendUint16(append([]byte{0, 0, 0, 1}, to.Addr().AsSlice()...), to.Port())
	question := question(t, "example.com.")
	got, _ := askUntilAnswered(t, pc, net.UDPAddrFromAddrPort(relay), append(header, question...))
	if want := append(append(header, "re: "...), question...); !bytes.Equal(got, want) {
		t.Errorf("answer %x, want %x", got, want)
	}
}

// unaskedPort is where the asker listens for what it has not asked for.
const unaskedPort = 9

// An unaskedListener is the asker's port, to which the policy lets nobody.
type unaskedListener struct {
	net.Listener
	udp net.PacketConn
	at  netip.AddrPort
}

func listenUnasked(t *testing.T, n *node.Node) *unaskedListener {
	l := &unaskedListener{at: netip.AddrPortFrom(ip4Of(n), unaskedPort)}
	var err error
	if l.Listener, err = n.Listen("tcp", ":9"); err != nil {
		t.Fatal(err)
	}
	if l.udp, err = n.ListenPacket("udp", ":9"); err != nil {
		t.Fatal(err)
	}
	return l
}

// try sends what must not arrive, and then, with a policy that lets it in, what must:
// that is the first to arrive.
func (l *unaskedListener) try(t *testing.T, tailnet *devnet.Net, from *node.Node) {
	u, err := from.Dial(within(t, patience), "udp", l.at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	for range 10 {
		io.WriteString(u, "unasked")
	}
	// Once this is rejected, those have arrived.
	if c, err := from.Dial(within(t, patience), "tcp", l.at.String()); !errors.Is(err, node.ErrRejected) {
		t.Errorf("a connection that was not asked for: %v, %v", c, err)
	}
	if err := tailnet.SetPolicy([]byte(`{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]}`)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		io.WriteString(u, "let in")
		l.udp.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if n, _, err := l.udp.ReadFrom(b); err == nil {
			if string(b[:n]) != "let in" {
				t.Errorf("%q has come in", b[:n])
			}
			return
		}
	}
	t.Error("the policy that lets all in has no effect")
}
