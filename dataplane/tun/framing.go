package tun

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/seed94491740/tsnode/packet"
)

// Lengths of headers in bytes.
const (
	familyHeader = 4  // the address family before a packet of a utun socket
	virtioHeader = 10 // struct virtio_net_hdr; VIRTIO 1.2 section 5.1.6
	maxVirtio    = 64 // of a header that the kernel was asked to make longer
	ipv4Header   = 20 // without options; RFC 791 section 3.1
	ipv6Header   = 40 // RFC 8200 section 3
)

// What stands for the two versions of IP in headers.
const (
	familyIPv4  = 2  // AF_INET on macOS
	familyIPv6  = 30 // AF_INET6 on macOS
	versionIPv4 = 4
	versionIPv6 = 6
)

// ErrMalformed says that what was read from a descriptor is no packet in the
// framing of that.
var ErrMalformed = errors.New("tun: no whole IP packet in the framing of the device")

// A Framing says what surrounds the packets on a descriptor. The zero value is
// nothing: one IP packet for each read and write.
type Framing struct {
	Virtio int  // bytes of virtio-net header, 0 for none (Linux with IFF_VNET_HDR)
	Family bool // 4 bytes of address family (macOS)
}

// check refuses what no device has.
func (f Framing) check() error {
	if f.Virtio != 0 && (f.Virtio < virtioHeader || f.Virtio > maxVirtio) {
		return fmt.Errorf("tun: virtio-net header of %d bytes: want %d to %d", f.Virtio, virtioHeader, maxVirtio)
	}
	return nil
}

// Header returns how many bytes lie before a packet.
func (f Framing) Header() int {
	n := f.Virtio
	if f.Family {
		n += familyHeader
	}
	return n
}

// Parse describes the packet in a frame that was read. The description borrows
// the frame, in which a missing checksum is completed unless segments are to be
// cut. The error is ErrMalformed.
func (f Framing) Parse(frame []byte, out *packet.Outbound) error {
	n := f.Header()
	if len(frame) < n {
		return ErrMalformed
	}
	head, pkt := frame[:n], frame[n:]
	if !whole(pkt) {
		return ErrMalformed
	}
	*out = packet.Outbound{Head: pkt}
	if f.Virtio == 0 {
		return nil
	}
	v := parseVirtio(head)
	return v.apply(out)
}

// whole reports whether b is one IP packet, no less and no more (VPN-42).
func whole(b []byte) bool {
	if len(b) < ipv4Header {
		return false
	}
	switch b[0] >> 4 {
	case versionIPv4:
		return int(binary.BigEndian.Uint16(b[2:])) == len(b)
	case versionIPv6:
		return len(b) >= ipv6Header && int(binary.BigEndian.Uint16(b[4:])) == len(b)-ipv6Header
	}
	return false
}

// Put writes what belongs before the packet at frame[f.Header():], for which the
// packet is to be whole. One that was merged is described to the kernel, which
// cuts it; f must have a virtio-net header then.
func (f Framing) Put(frame []byte, m packet.Merged) {
	n := f.Header()
	head, pkt := frame[:n], frame[n:n+m.Len]
	clear(head)
	six := pkt[0]>>4 == versionIPv6
	if f.Family {
		binary.BigEndian.PutUint32(head, pick[uint32](six, familyIPv6, familyIPv4))
		return
	}
	if f.Virtio > 0 && m.Count > 1 {
		describeMerged(pkt, m).put(head)
	}
}

// pick returns the value for IPv6 or the one for IPv4.
func pick[T any](six bool, v6, v4 T) T {
	if six {
		return v6
	}
	return v4
}
