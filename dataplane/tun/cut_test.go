package tun

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/seed94491740/tsnode/packet"
)

var (
	a4, b4 = netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("100.64.0.2")
	a6, b6 = netip.MustParseAddr("fd7a:115c:a1e0::1"), netip.MustParseAddr("fd7a:115c:a1e0::2")
)

// tcpPacket returns the packet of a TCP segment, whose checksums are right.
func tcpPacket(from, to netip.Addr, id uint16, fragmentable bool, sequence uint32, flags uint8, payload []byte) []byte {
	const header = 32 // with time stamps and two bytes of padding
	b, err := packet.AppendIP(nil, from, to, packet.TCP, header+len(payload))
	if err != nil {
		panic(err)
	}
	start := len(b)
	if from.Is4() {
		binary.BigEndian.PutUint16(b[ipv4ID:], id)
		if !fragmentable {
			binary.BigEndian.PutUint16(b[ipv4Fragment:], dontFragment)
		}
		packet.SetIPv4Checksum(b, ipv4Header)
	}
	t := make([]byte, header)
	binary.BigEndian.PutUint16(t, 443)
	binary.BigEndian.PutUint16(t[2:], 40000)
	binary.BigEndian.PutUint32(t[tcpSequence:], sequence)
	t[12], t[tcpFlags] = header/4<<4, flags
	copy(t[20:], []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}) // RFC 7323 appendix A
	b = append(append(b, t...), payload...)
	binary.BigEndian.PutUint16(b[start+tcpChecksum:], ^packet.Sum(b[start:], packet.PseudoSum(b, packet.TCP, len(b)-start)))
	return b
}

// segments are those of a transfer of n bytes, size bytes in each but the last,
// which ends with PSH and FIN.
func segments(six, fragmentable bool, n, size int) (pkts [][]byte) {
	from, to := a4, b4
	if six {
		from, to = a6, b6
	}
	payload := make([]byte, n)
	for i := range payload {
		payload[i] = byte(i * 7)
	}
	for i, at := 0, 0; at < n; i, at = i+1, at+size {
		id, flags := uint16(0xffff), packet.ACK
		if fragmentable {
			id += uint16(i)
		}
		if at+size >= n {
			flags |= packet.PSH | packet.FIN
		}
		pkts = append(pkts, tcpPacket(from, to, id, fragmentable, 0xfffff000+uint32(at), flags, payload[at:min(at+size, n)]))
	}
	return pkts
}

// mergeSegments puts segments together as the tunnel does (WG-68): the TCP
// checksum is stale.
func mergeSegments(pkts [][]byte) ([]byte, packet.Merged) {
	start := pick(pkts[0][0]>>4 == versionIPv6, ipv6Header, ipv4Header)
	headers := start + int(pkts[0][start+12]>>4)*4
	b := bytes.Clone(pkts[0])
	for _, p := range pkts[1:] {
		b = append(b, p[headers:]...)
		b[start+tcpFlags] |= p[start+tcpFlags]
	}
	if start == ipv4Header {
		binary.BigEndian.PutUint16(b[ipv4Total:], uint16(len(b)))
		packet.SetIPv4Checksum(b, ipv4Header)
	} else {
		binary.BigEndian.PutUint16(b[ipv6Length:], uint16(len(b)-ipv6Header))
	}
	return b, packet.Merged{Len: len(b), HeaderLen: headers, Segment: len(pkts[0]) - headers, Count: len(pkts)}
}

// What was merged on the way in is cut into the segments that came, byte for byte.
func TestCutUndoesMerging(t *testing.T) {
	for name, framing := range framings {
		for _, six := range []bool{false, true} {
			for _, fragmentable := range []bool{false, true} {
				for _, size := range []int{1, 100, 1228} {
					t.Run(fmt.Sprintf("%s/six=%v/fragmentable=%v/%d", name, six, fragmentable, size), func(t *testing.T) {
						testCut(t, framing, segments(six, fragmentable, 7*size-size/2, size))
					})
				}
			}
		}
	}
}

func testCut(t *testing.T, framing Framing, want [][]byte) {
	merged, m := mergeSegments(want)
	n := framing.Header()
	frame := append(make([]byte, n), merged...)
	c := cutter{framing: framing}
	i := 0
	c.cut(frame, m, func(piece []byte) {
		if i >= len(want) || !bytes.Equal(piece[n:], want[i]) {
			t.Fatalf("segment %d is %x\nwant %x", i, piece[n:], want[min(i, len(want)-1)])
		}
		expected := make([]byte, len(piece))
		copy(expected[n:], want[i])
		framing.Put(expected, packet.Merged{Len: len(want[i]), Count: 1})
		if !bytes.Equal(piece, expected) {
			t.Fatalf("frame %x, want %x", piece, expected)
		}
		i++
	})
	if i != len(want) {
		t.Errorf("%d segments, want %d", i, len(want))
	}
}
