package host

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// The types of echo messages (RFC 792; RFC 4443 section 4).
const (
	echoRequest4 = 8
	echoReply4   = 0
	echoRequest6 = 128
	echoReply6   = 129
)

// echoHeader is the size of an echo message before its payload, in bytes: type,
// code, checksum, identifier, sequence number.
const echoHeader = 8

// An echoMessage is an ICMP echo request or reply of either family.
type echoMessage struct {
	id, seq uint16
	payload []byte
}

// appendEchoRequest appends the request m to b. Only that of IPv4 has its
// checksum: the kernel computes the other, which covers the addresses
// (RFC 3542 section 3.1).
func appendEchoRequest(b []byte, m echoMessage, v6 bool) []byte {
	start := len(b)
	typ := byte(echoRequest4)
	if v6 {
		typ = echoRequest6
	}
	b = append(b, typ, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, m.id)
	b = binary.BigEndian.AppendUint16(b, m.seq)
	b = append(b, m.payload...)
	if !v6 {
		binary.BigEndian.PutUint16(b[start+2:], checksum(b[start:]))
	}
	return b
}

// checksum returns the checksum of RFC 1071 over b.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
		sum = sum&0xffff + sum>>16
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

var errNotEchoReply = errors.New("not an ICMP echo reply")

// parseEchoReply parses a reply as the kernel hands it out; some systems leave
// the IPv4 header before it. The kernel has verified the checksum. The payload
// aliases b.
func parseEchoReply(b []byte, v6 bool) (echoMessage, error) {
	want := byte(echoReply6)
	if !v6 {
		want = echoReply4
		if len(b) >= 20 && b[0]>>4 == 4 { // no ICMP type that we await begins like this
			b = b[min(int(b[0]&15)*4, len(b)):]
		}
	}
	if len(b) < echoHeader || b[0] != want || b[1] != 0 {
		return echoMessage{}, errNotEchoReply
	}
	return echoMessage{
		id:      binary.BigEndian.Uint16(b[4:]),
		seq:     binary.BigEndian.Uint16(b[6:]),
		payload: b[echoHeader:],
	}, nil
}

// maxEchoPayload bounds a payload, in bytes: what a packet of 1280 bytes holds
// in both families.
const maxEchoPayload = 1280 - 40 - echoHeader

// Echo sends one echo request and waits for its answer as long as ctx lets it
// (NC-34). It uses the datagram sockets for ICMP where the system has them and
// lets this user have them, which on Linux the setting net.ipv4.ping_group_range
// decides, else a raw socket, which needs privilege.
func (o OS) Echo(ctx context.Context, to netip.Addr, payload []byte) (time.Duration, error) {
	to = to.Unmap()
	if !to.IsValid() || len(payload) > maxEchoPayload {
		return 0, fmt.Errorf("host: ICMP echo to %v with %d bytes: want an address and at most %d bytes", to, len(payload), maxEchoPayload)
	}
	d, err := o.echo(ctx, to, payload)
	switch {
	case err == nil:
		return d, nil
	case ctx.Err() != nil:
		err = ctx.Err()
	case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.EPROTONOSUPPORT), errors.Is(err, syscall.EAFNOSUPPORT):
		err = fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	return 0, fmt.Errorf("host: ICMP echo to %v: %w", to, err)
}

func (o OS) echo(ctx context.Context, to netip.Addr, payload []byte) (time.Duration, error) {
	c, err := openEcho(ctx, to.Is6())
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := o.mark(c.(syscall.Conn)); err != nil {
		return 0, err
	}
	defer context.AfterFunc(ctx, func() { c.Close() })()
	m := echoMessage{id: uint16(rand.Uint32()), seq: uint16(rand.Uint32()), payload: payload}
	start := time.Now()
	if _, err := c.WriteTo(appendEchoRequest(nil, m, to.Is6()), echoAddr(c, to)); err != nil {
		return 0, err
	}
	return awaitEcho(c, to, m, start)
}

// echoAddr returns to as the kind of address that c writes to.
func echoAddr(c net.PacketConn, to netip.Addr) net.Addr {
	if _, ok := c.(*net.IPConn); ok {
		return &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()}
	}
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 0))
}

// awaitEcho reads until the answer to m has come. A raw socket sees the answers
// to everybody.
func awaitEcho(c net.PacketConn, to netip.Addr, m echoMessage, start time.Time) (time.Duration, error) {
	_, raw := c.(*net.IPConn)
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return 0, err
		}
		d := time.Since(start)
		r, err := parseEchoReply(buf[:n], to.Is6())
		if err == nil && sender(from) == to && m.answeredBy(r, raw) {
			return d, nil
		}
	}
}

// answeredBy compares sequence and payload, and the identifier on raw sockets
// alone: the kernel puts its own into the messages of a datagram socket.
func (m echoMessage) answeredBy(r echoMessage, raw bool) bool {
	return m.seq == r.seq && (m.id == r.id || !raw) && string(m.payload) == string(r.payload)
}

func sender(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap()
	case *net.IPAddr:
		ip, _ := netip.AddrFromSlice(a.IP)
		return ip.Unmap().WithZone(a.Zone)
	}
	return netip.Addr{}
}

// openRawEcho returns a raw ICMP socket.
func openRawEcho(ctx context.Context, v6 bool) (net.PacketConn, error) {
	var lc net.ListenConfig
	if v6 {
		return lc.ListenPacket(ctx, "ip6:ipv6-icmp", "::")
	}
	return lc.ListenPacket(ctx, "ip4:icmp", "0.0.0.0")
}
