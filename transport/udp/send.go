package udp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/transport"
)

// Send gives bursts to the host for one UDP endpoint. It takes no lock of its
// own and waits only for room in the host's send buffer. To an endpoint behind
// a peer relay Room bytes are sent with each datagram, as the caller has filled
// them; to any other they are left out (WG-60).
//
// A loss is no error, and neither is having no socket: both are counted. An
// error that is transport.ErrUnreachable says that the host has no way to this
// endpoint now (PATH-59, PATH-60).
func (s *Socket) Send(to transport.Endpoint, bursts []packet.Burst) error {
	if to.IsDERP() || !to.Addr.IsValid() {
		return fmt.Errorf("udp: send: endpoint %v of region %d is no UDP address", to.Addr, to.Region)
	}
	if to.VNI == 0 && hasRoom(bursts) {
		bursts = withoutRoom(bursts)
	}
	f := s.v6
	if to.Addr.Addr().Unmap().Is4() {
		f = s.v4
	}
	n, size := measure(bursts)
	c, err := f.send(to, bursts)
	switch {
	case err != nil:
		return s.failed(to, bursts, c, err)
	case c == nil:
		s.stats.unbound.Add(n)
	default:
		s.stats.sent.Add(n)
		s.stats.sentBytes.Add(size)
	}
	return nil
}

// send writes to the socket of the family, and to the next one if that has been
// closed meanwhile (PATH-58). It returns the socket, nil when there is none.
func (f *family) send(to transport.Endpoint, bursts []packet.Burst) (host.UDPConn, error) {
	for {
		c := f.to(to.Addr)
		if c == nil {
			return nil, nil
		}
		err := c.WriteBursts(to.Addr, bursts)
		if err == nil || !errors.Is(err, net.ErrClosed) || f.has(c) {
			return c, err
		}
	}
}

func hasRoom(bursts []packet.Burst) bool {
	for i := range bursts {
		if bursts[i].Room > 0 {
			return true
		}
	}
	return false
}

// withoutRoom returns each datagram as a burst of its own. It is for what was
// sealed for a relay and goes a direct way as well.
func withoutRoom(bursts []packet.Burst) []packet.Burst {
	var out []packet.Burst
	for _, b := range bursts {
		for i := range b.Count {
			d := b.Datagram(i)
			out = append(out, packet.Burst{Buf: d, Size: len(d), Count: 1})
		}
	}
	return out
}

func measure(bursts []packet.Burst) (datagrams, size uint64) {
	for i := range bursts {
		datagrams += uint64(bursts[i].Count)
		size += uint64(len(bursts[i].Buf))
	}
	return datagrams, size
}

// A failure is what an error of sending means for us.
type failure uint8

const (
	other       failure = iota
	lost                // no room in the host: as if the network had lost it
	forbidden           // a firewall, or security software that has lost track of the socket
	broken              // this socket will not send again
	unreachable         // the host has no way there
	tooLong             // longer than the path's MTU
)

// failed decides what to do about an error (PATH-59, PATH-60).
func (s *Socket) failed(to transport.Endpoint, bursts []packet.Burst, c host.UDPConn, err error) error {
	n, _ := measure(bursts)
	switch kind := classify(err); {
	case kind == lost, isProbe(bursts) && (kind == forbidden || kind == tooLong):
		s.stats.lost.Add(n)
		return nil
	case kind == forbidden, kind == broken:
		s.stats.lost.Add(n)
		s.report(c)
		return nil
	case kind == unreachable:
		s.stats.unreachable.Add(n)
		return fmt.Errorf("udp: send to %v: %w: %w", to.Addr, transport.ErrUnreachable, err)
	}
	s.stats.failed.Add(n)
	return fmt.Errorf("udp: send to %v: %w", to.Addr, err)
}

// report asks for a rebind if c is still in use.
func (s *Socket) report(c host.UDPConn) {
	if s.v4.has(c) || s.v6.has(c) {
		post(s.broken)
	}
}

// classify tells what err means; the system's own numbers are in classifySystem.
func classify(err error) failure {
	if errors.Is(err, net.ErrClosed) {
		return broken
	}
	return classifySystem(err)
}

// discoMagic begins every disco frame: "TS" and U+1F4AC (paths.md section 2.1).
var discoMagic = []byte("TS\xf0\x9f\x92\xac")

// stunCookie is at offset 4 of every STUN message; RFC 8489 section 5.
const stunCookie = 0x2112a442

// isProbe reports whether bursts hold a disco or STUN message. Probing expects
// to lose some.
func isProbe(bursts []packet.Burst) bool {
	if len(bursts) == 0 || bursts[0].Count == 0 {
		return false
	}
	d := bursts[0].Datagram(0)
	return bytes.HasPrefix(d, discoMagic) || len(d) >= 8 && binary.BigEndian.Uint32(d[4:]) == stunCookie
}
