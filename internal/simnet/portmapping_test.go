package simnet

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// A mappingWorld is a host behind a gateway that answers requests.
type mappingWorld struct {
	router          *Router
	client, service *socket
	outside         *socket
}

func newMappingWorld(t *testing.T, n *Internet, nat NAT, c PortMapping) mappingWorld {
	r := n.AddRouter("home", RouterConfig{NAT: nat, PortMapping: c})
	h := r.AddHost("inside", HostConfig{})
	return mappingWorld{r, listen4(t, h), listen(t, h, "udp4", 5000), listen4(t, n.AddHost("outside", HostConfig{}))}
}

// ask sends a request in hex and returns the answer in hex.
func (w mappingWorld) ask(request string) string {
	w.client.t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(request, " ", ""))
	if err != nil {
		w.client.t.Fatal(err)
	}
	w.client.send(netip.AddrPortFrom(w.router.Gateway(), portMappingPort), string(b))
	answer, from := w.client.receive()
	if answer != "" && from != netip.AddrPortFrom(w.router.Gateway(), portMappingPort) {
		w.client.t.Errorf("answer from %v", from)
	}
	return hex.EncodeToString([]byte(answer))
}

func (w mappingWorld) expect(request, want string) {
	w.client.t.Helper()
	if got := w.ask(request); got != strings.ReplaceAll(want, " ", "") {
		w.client.t.Errorf("asked %s\nanswer %s\nwant   %s", request, got, want)
	}
}

const (
	mapPMP    = "00 01 0000 1388 2710 00001c20" // 5000 as 10000 for 7200 s
	deletePMP = "00 01 0000 1388 0000 00000000"
)

// TestPMP: byte for byte (RFC 6886 sections 3.2 to 3.5).
func TestPMP(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		w := newMappingWorld(t, n, Symmetric, PortMapping{PMP: true})
		outer := hex.EncodeToString(w.router.Outer().AsSlice())
		w.expect("00 00", "00 80 0000 00000000"+outer)
		time.Sleep(100 * time.Second)
		w.expect(mapPMP, "00 81 0000 00000064 1388 2710 00001c20")

		public := netip.AddrPortFrom(w.router.Outer(), 10000)
		w.outside.send(public, "to the mapped port")
		from := w.service.expect("to the mapped port")
		if from != w.outside.addr() {
			t.Errorf("from %v, want %v", from, w.outside.addr())
		}
		w.service.send(from, "answer")
		if from := w.outside.expect("answer"); from != public {
			t.Errorf("answer from %v, want %v", from, public)
		}

		got := w.ask("00 01 0000 1389 2710 00000e10") // the port is taken
		if other := got[20:24]; got[:20]+got[24:] != "00810000000000641389"+"00000e10" || other == "2710" {
			t.Errorf("another port of the host: %s", got)
		}
		w.expect("00 05 0000", "00 85 0005 00000064")
		w.expect("01 01 0000", "00 81 0001 00000064")
		w.expect("00 01 0000 13", "")
		w.expect("00 81 0000 1388", "")
		w.expect(deletePMP, "00 81 0000 00000068 1388 0000 00000000")
		w.outside.send(public, "no more")
		w.service.expectNothing()
	})
}

// TestLease: it ends when its time is over and not before, whatever is sent.
func TestLease(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		w := newMappingWorld(t, n, Easy, PortMapping{PMP: true, MaxLease: 10 * time.Minute})
		w.expect(mapPMP, "00 81 0000 00000000 1388 2710 00000258")
		public := netip.AddrPortFrom(w.router.Outer(), 10000)
		w.service.send(w.outside.addr(), "out") // an easy NAT uses it outward, too
		if from := w.outside.expect("out"); from != public {
			t.Errorf("from %v, want %v", from, public)
		}
		time.Sleep(9 * time.Minute)
		w.outside.send(public, "still")
		w.service.expect("still")
		time.Sleep(time.Minute)
		w.outside.send(public, "over")
		w.service.expectNothing()
	})
}

// TestRefusals: errors of either protocol, silence, and a router that restarts.
func TestRefusals(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		w := newMappingWorld(t, n, Easy, PortMapping{PMP: true, Result: 2})
		w.expect(mapPMP, "00 81 0002 00000000 1388 0000 00000000")
		w.router.SetPortMapping(PortMapping{})
		w.expect(mapPMP, "")
		w.router.SetPortMapping(PortMapping{PCP: true})
		w.expect("00 00", "02 80 00 01 0000001e 00000002 000000000000000000000000")

		w.router.SetPortMapping(PortMapping{PMP: true})
		time.Sleep(time.Hour)
		w.ask(mapPMP)
		w.router.Reboot()
		if up := w.router.Uptime(); up != 0 {
			t.Errorf("up for %v after a reboot", up)
		}
		w.outside.send(netip.AddrPortFrom(w.router.Outer(), 10000), "forgotten")
		w.service.expectNothing()
		w.expect("00 00", "00 80 0000 00000002"+hex.EncodeToString(w.router.Outer().AsSlice()))

		full := newMappingWorld(t, n, NAT{MaxMappings: 1}, PortMapping{PMP: true})
		full.service.send(w.outside.addr(), "takes the only port")
		full.expect(mapPMP, "00 81 0004 00000000 1388 0000 00000000")
	})
}

// pcpRequest builds a request of the host at that address.
func pcpRequest(op byte, lifetime uint32, client netip.Addr, body ...byte) string {
	b := []byte{2, op, 0, 0}
	b = binary.BigEndian.AppendUint32(b, lifetime)
	c := client.As16()
	return hex.EncodeToString(append(append(b, c[:]...), body...))
}

func pcpMapBody(nonce, proto byte, inside, wanted uint16) []byte {
	b := bytes.Repeat([]byte{nonce}, 12)
	b = append(b, proto, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, inside)
	b = binary.BigEndian.AppendUint16(b, wanted)
	any := netip.MustParseAddr("::ffff:0.0.0.0").As16()
	return append(b, any[:]...)
}

// TestPCP: byte for byte (RFC 6887 sections 7, 11 and 14.1).
func TestPCP(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		w := newMappingWorld(t, n, Symmetric, PortMapping{PCP: true})
		me := w.client.host.Addr4()
		header := func(op, result byte, lifetime, epoch uint32) string {
			b := []byte{2, op | answerBit, 0, result}
			b = binary.BigEndian.AppendUint32(b, lifetime)
			b = binary.BigEndian.AppendUint32(b, epoch)
			return hex.EncodeToString(append(b, make([]byte, 12)...))
		}
		mapped := func(nonce byte, inside, external uint16) string {
			b := pcpMapBody(nonce, protocolUDP, inside, external)
			outer := w.router.Outer().As16()
			copy(b[20:], outer[:])
			return hex.EncodeToString(b)
		}
		w.expect(pcpRequest(0, 0, me), header(0, 0, 0, 0))
		time.Sleep(7 * time.Second)
		w.expect(pcpRequest(1, 7200, me, pcpMapBody(1, protocolUDP, 5000, 10000)...), header(1, 0, 7200, 7)+mapped(1, 5000, 10000))
		w.outside.send(netip.AddrPortFrom(w.router.Outer(), 10000), "mapped")
		w.service.expect("mapped")

		other := pcpMapBody(2, protocolUDP, 5000, 10000)
		w.expect(pcpRequest(1, 7200, me, other...), header(1, pcpNonce, pcpErrorTime, 7)+hex.EncodeToString(other))
		tcp := pcpMapBody(3, protocolTCP, 5000, 10000)
		if got := w.ask(pcpRequest(1, 60, me, tcp...)); got[6:8] != "00" || got[84:88] != "2710" {
			t.Errorf("TCP: %s", got)
		}
		sctp := pcpMapBody(4, 132, 5000, 10000)
		w.expect(pcpRequest(1, 60, me, sctp...), header(1, pcpProtocol, pcpErrorTime, 7)+hex.EncodeToString(sctp))
		w.expect(pcpRequest(0, 0, w.outside.addr().Addr()), header(0, pcpAddress, pcpErrorTime, 7))
		w.expect(pcpRequest(2, 0, me), header(2, pcpOpcode, pcpErrorTime, 7))
		w.expect(pcpRequest(1, 60, me), header(1, pcpMalformed, pcpErrorTime, 7))
		w.expect(pcpRequest(1, 60, me)[:20], header(1, pcpMalformed, pcpErrorTime, 7))

		w.expect(pcpRequest(1, 0, me, pcpMapBody(1, protocolUDP, 5000, 0)...), header(1, 0, 0, 7)+mapped(1, 5000, 0))
		w.outside.send(netip.AddrPortFrom(w.router.Outer(), 10000), "no more")
		w.service.expectNothing()

		w.router.SetPortMapping(PortMapping{PCP: true, Result: 2})
		w.expect(pcpRequest(1, 60, me, other...), header(1, 2, pcpErrorTime, 9)+hex.EncodeToString(other))
	})
}

// FuzzPortMapping: no request makes the gateway panic, and none is answered with
// more than it had, but for a header.
func FuzzPortMapping(f *testing.F) {
	f.Add([]byte{0, 0})
	f.Add([]byte{0, 1, 0, 0, 0x13, 0x88, 0x27, 0x10, 0, 0, 0x1c, 0x20})
	for _, s := range []string{pcpRequest(0, 0, addrs("192.168.1.2")[0]), pcpRequest(1, 60, addrs("192.168.1.2")[0], pcpMapBody(1, protocolUDP, 5000, 10000)...)} {
		b, err := hex.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	n := New(1)
	f.Cleanup(n.Close)
	r := n.AddRouter("home", RouterConfig{PortMapping: PortMapping{PMP: true, PCP: true}})
	h := r.AddHost("inside", HostConfig{})
	s := listen(f, h, "udp4", 0)
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := s.conn.WriteBursts(netip.AddrPortFrom(r.Gateway(), portMappingPort), single(b)); err != nil {
			return
		}
		for s.waiting() {
			if _, err := s.conn.ReadBatch(s.ms); err != nil {
				t.Fatal(err)
			}
			if k := s.ms[0].N; k > len(b)+pcpHeader {
				t.Errorf("%d bytes for a request of %d", k, len(b))
			}
		}
	})
}
