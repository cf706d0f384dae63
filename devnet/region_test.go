package devnet

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/stun"
)

// dialRelay wants the relay to present the certificate of the DERP map.
func dialRelay(d *netmap.DERPNode) error {
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", net.JoinHostPort(d.HostName, strconv.Itoa(d.DERPPort)), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return err
	}
	defer c.Close()
	cert := c.ConnectionState().PeerCertificates[0]
	if got := derp.PinCertName(cert.Raw); got != d.CertName {
		return fmt.Errorf("certificate %s, map says %s", got, d.CertName)
	}
	return cert.VerifyHostname(d.HostName) // what nodes of the reference check, too
}

// askSTUN returns the address that the STUN server sees.
func askSTUN(d *netmap.DERPNode) (netip.AddrPort, netip.AddrPort, error) {
	c, err := net.Dial("udp", net.JoinHostPort(d.STUNTestIP, strconv.Itoa(d.STUNPort)))
	if err != nil {
		return netip.AddrPort{}, netip.AddrPort{}, err
	}
	defer c.Close()
	id, buf := stun.NewTxID(), make([]byte, 1500)
	c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write(stun.AppendRequest(nil, id)); err != nil {
		return netip.AddrPort{}, netip.AddrPort{}, err
	}
	size, err := c.Read(buf)
	if err != nil {
		return netip.AddrPort{}, netip.AddrPort{}, err
	}
	got, seen, err := stun.ParseResponse(buf[:size])
	if err == nil && got != id {
		err = fmt.Errorf("answer to %v", got)
	}
	return seen, c.LocalAddr().(*net.UDPAddr).AddrPort(), err
}

// Relays are where the DERP map says, with the certificate it says, and stay so
// over a restart; their STUN servers answer (DERP-132).
func TestRegions(t *testing.T) {
	n := New(t, Config{Relays: 2})
	a := newRawNode(t, n, "a").join(KeyOptions{})
	regions := a.poll().state.DERPMap.Regions
	for id := 1; id <= 2; id++ {
		d := regions[id].Nodes[0]
		check := func(when string) {
			t.Helper()
			if err := dialRelay(d); err != nil {
				t.Errorf("relay %d %s: %v", id, when, err)
			}
			if seen, local, err := askSTUN(d); err != nil || seen != local {
				t.Errorf("STUN %d %s: %v, want %v, %v", id, when, seen, local, err)
			}
		}
		check("at first")
		if err := n.StopRelay(id); err != nil {
			t.Fatal(err)
		}
		if err := dialRelay(d); err == nil {
			t.Errorf("relay %d answers after its end", id)
		}
		if err := n.StartRelay(id); err != nil {
			t.Fatal(err)
		}
		check("started again")
		if err := n.RestartRelay(id); err != nil {
			t.Fatal(err)
		}
		check("restarted")
	}
	for _, id := range []int{0, 3} {
		if err := n.RestartRelay(id); err == nil {
			t.Errorf("relay %d is restarted", id)
		}
	}
}

// The DERP map names the address that the node has dialed.
func TestDERPMapAddress(t *testing.T) {
	r := &region{id: 1, cert: tls.Certificate{Certificate: [][]byte{{1}}}, derpPort: 443, stunPort: 3478}
	for at, want := range map[string]string{"127.0.0.1": "127.0.0.1 none", "192.0.2.7": "192.0.2.7 none", "fd00::7": "none fd00::7"} {
		d := derpMap([]*region{r}, netip.MustParseAddr(at)).Regions[1].Nodes[0]
		if got := d.IPv4 + " " + d.IPv6; got != want || d.HostName != at || d.STUNTestIP != at {
			t.Errorf("at %s: %q, %+v; want %q", at, got, d, want)
		}
	}
}

// A scripted UDP socket returns batches of messages from these addresses.
type scriptedUDP struct{ batches [][]string }

func (s *scriptedUDP) ReadBatch(ms []host.Message) (int, error) {
	if len(s.batches) == 0 {
		return 0, net.ErrClosed
	}
	for i, from := range s.batches[0] {
		ms[i].From, ms[i].N = netip.MustParseAddrPort(from), i+1
	}
	n := len(s.batches[0])
	s.batches = s.batches[1:]
	return n, nil
}

func (s *scriptedUDP) WriteBursts(netip.AddrPort, []packet.Burst) error { return nil }
func (s *scriptedUDP) LocalAddr() netip.AddrPort                        { return netip.AddrPort{} }
func (s *scriptedUDP) Close() error                                     { return nil }

// A socket for this machine alone is deaf to others.
func TestLocalOnly(t *testing.T) {
	s := &scriptedUDP{batches: [][]string{{"192.0.2.1:1"}, {"192.0.2.1:1", "127.0.0.1:2", "[2001:db8::1]:3", "[::1]:4"}}}
	ms := make([]host.Message, 4)
	for i := range ms {
		ms[i].Buf = make([]byte, i+1)
	}
	n, err := localOnly{s}.ReadBatch(ms)
	if err != nil || n != 2 || ms[0].From.Port() != 2 || ms[0].N != 2 || ms[1].From.Port() != 4 || ms[1].N != 4 {
		t.Errorf("%d messages, %v: %+v", n, err, ms[:n])
	}
	sizes := make(map[int]bool)
	for _, m := range ms {
		sizes[len(m.Buf)] = true
	}
	if len(sizes) != 4 {
		t.Error("a buffer was lost")
	}
	if _, err := (localOnly{s}).ReadBatch(ms); err != net.ErrClosed {
		t.Errorf("closed: %v", err)
	}
}
