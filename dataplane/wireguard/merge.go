package wireguard

import (
	"encoding/binary"

	"github.com/seed94491740/tsnode/packet"
)

const (
	// maxMerged is the length of the longest IP packet; a train does not grow
	// beyond it, though an IPv6 packet could by its 40 bytes of header (WG-67).
	maxMerged = 65535

	maxMergeCount = 64 // packets in a train; WG-67

	// maxChunk is the largest memory asked of a Sink, one chunk of the stack's
	// largest size (WG-72).
	maxChunk = 1 << 16

	// maxTrainHeaders is the longest IPv6 and TCP header of a train; IPv4 ones
	// have no options.
	maxTrainHeaders = ipv6Header + 60

	// openerBuffer is what an Opener opens a packet in, twice: two packets of
	// any usual MTU, so that a second one can show whether a train follows.
	openerBuffer = 4 << 10
)

// A train is the one packet that an Opener holds back: a TCP segment, grown by
// those that followed it. Each of them is opened with its header over the last
// bytes of the train, so that its payload lands where it belongs without a copy
// (WG-65):
//
//	mem   [ headers ][ payload 0 ][ payload 1 ...... ]                  end
//	open                                   [ headers 2 ][ payload 2 ][ padding ]
//	saved                                  the bytes under headers 2
//
// A train lies in home, memory of the Opener, until a second packet has proven
// that it is one and it outgrows home; then it moves to memory of the Sink that
// has room for all that may follow. So single packets, the packets of flows that
// take turns and UDP never ask for a large chunk (WG-72).
type train struct {
	home     []byte
	mem      []byte // home, or memory of the Sink
	reserved bool   // mem is the Sink's
	end      int    // bytes of the packet; 0 = there is none

	peer    *Peer // who sent it; nil when there is none
	trusted bool  // all of its flow passes
	shut    bool  // nothing may follow

	tcp     int // where the TCP header begins
	headers int // bytes of both headers
	segment int // payload bytes of the first packet
	count   int
	next    uint32 // sequence number to follow
	first   [maxTrainHeaders]byte
	saved   [maxTrainHeaders]byte
}

// begin makes a packet of n bytes in home the train.
func (t *train) begin(p *Peer, n int, trusted bool) {
	b := t.home[:n]
	t.mem, t.reserved, t.end = t.home, false, n
	t.peer, t.trusted, t.count = p, trusted, 1
	t.tcp, t.headers = tcpHeaders(b)
	t.segment = n - t.headers
	t.shut = !leads(b, t.tcp, t.headers)
	if t.shut {
		return
	}
	copy(t.first[:], b[:t.headers])
	t.next = binary.BigEndian.Uint32(b[t.tcp+tcpSeq:]) + uint32(t.segment)
}

// leads reports whether a packet may be the first of a train: a TCP segment with
// payload and no flag but ACK and ECE, in an IPv4 packet without options or an
// IPv6 packet without extensions (WG-67). PSH and FIN end a train, so a packet
// that has them is one by itself.
func leads(b []byte, tcp, headers int) bool {
	switch {
	case headers == 0 || headers == len(b):
		return false
	case b[0]>>4 == 4 && (tcp != ipv4Header || binary.BigEndian.Uint16(b[ipv4Frag:])&^dontFragment != 0):
		return false
	}
	return b[tcp+tcpFlags]&^packet.ECE == packet.ACK
}

// fits reports whether a plaintext of size bytes can be opened over the end of
// the train.
func (t *train) fits(size int) bool { return t.end > 0 && t.end-t.headers+size <= len(t.mem) }

// overlay returns the place for that plaintext and saves what is there.
func (t *train) overlay(size int) []byte {
	at := t.end - t.headers
	copy(t.saved[:t.headers], t.mem[at:])
	return t.mem[at : at+size]
}

// restore puts back what overlay saved. An Open that fails has zeroed all of the
// place (WG-66).
func (t *train) restore() { copy(t.mem[t.end-t.headers:], t.saved[:t.headers]) }

// continues reports whether the packet b may be merged onto the train: it must
// not differ in anything but length, identification and checksums, the sequence
// number that follows, and PSH and FIN (WG-67).
func (t *train) continues(b []byte) bool {
	payload := len(b) - t.headers
	if payload < 1 || payload > t.segment || t.end+payload > maxMerged {
		return false
	}
	h := t.first[:t.headers]
	if !sameIP(h, b) {
		return false
	}
	h, b = h[t.tcp:], b[t.tcp:t.headers]
	return binary.BigEndian.Uint32(b[tcpSeq:]) == t.next && sameTCP(h, b)
}

// sameIP compares the IP headers of two packets, of which h has no options.
func sameIP(h, b []byte) bool {
	le := binary.LittleEndian
	if h[0]>>4 == 4 {
		return le.Uint16(b) == le.Uint16(h) && // version, header length, TOS with ECN
			le.Uint32(b[6:]) == le.Uint32(h[6:]) && // fragment word, TTL, protocol
			le.Uint64(b[12:]) == le.Uint64(h[12:])
	}
	return le.Uint32(b) == le.Uint32(h) && // version, traffic class, flow label
		le.Uint16(b[6:]) == le.Uint16(h[6:]) && // next header, hop limit
		string(b[8:40]) == string(h[8:40])
}

// sameTCP compares two TCP headers, options included, but for sequence number
// and checksum. h has neither PSH nor FIN.
func sameTCP(h, b []byte) bool {
	le := binary.LittleEndian
	return le.Uint32(b) == le.Uint32(h) && // ports
		le.Uint32(b[8:]) == le.Uint32(h[8:]) && // acknowledgment
		b[12] == h[12] && b[13]&^(packet.PSH|packet.FIN) == h[13] &&
		le.Uint16(b[14:]) == le.Uint16(h[14:]) && // window
		string(b[18:]) == string(h[18:]) // urgent pointer, options
}

// extend merges the packet of n bytes that lies over the end of the train and
// continues it.
func (t *train) extend(n int) {
	flags := t.mem[t.end-t.headers+t.tcp+tcpFlags] & (packet.PSH | packet.FIN)
	t.restore()
	payload := n - t.headers
	t.end += payload
	t.next += uint32(payload)
	t.count++
	t.mem[t.tcp+tcpFlags] |= flags
	t.shut = flags != 0 || payload < t.segment || t.count == maxMergeCount
}

// finish sets the length of a train of several packets, and the IPv4 header
// checksum. The TCP checksum is left stale: what passed the tunnel is what the
// peer sent (WG-71).
func (t *train) finish() {
	b := t.mem[:t.end]
	if b[0]>>4 == 4 {
		binary.BigEndian.PutUint16(b[ipv4Total:], uint16(len(b)))
		packet.SetIPv4Checksum(b, ipv4Header)
		return
	}
	binary.BigEndian.PutUint16(b[ipv6Length:], uint16(len(b)-ipv6Header))
}

// deliver takes the packet of n bytes in loose. It becomes the train if others
// may follow, or leaves at once; the train before it leaves first, so order
// holds (WG-68).
func (o *Opener) deliver(p *Peer, n int, v Verdict) {
	o.close()
	t := &o.train
	t.home, o.loose = o.loose, t.home
	t.begin(p, n, v == PassFlow)
	if t.shut {
		o.close()
	}
}

// merge takes the packet of n bytes over the end of the train into it. size is
// the length of its plaintext, rest how many bytes of the batch are to come.
func (o *Opener) merge(n, size, rest int) {
	t := &o.train
	t.extend(n)
	if t.shut {
		o.close()
		return
	}
	if t.reserved {
		return
	}
	datagram := size + keepaliveSize
	follow := min((rest+datagram-1)/datagram, maxMergeCount-t.count)
	want := min(t.end+follow*(size-t.headers), maxChunk)
	if want > len(t.home) {
		mem := o.sink.Reserve(want)[:want]
		copy(mem, t.home[:t.end])
		t.mem, t.reserved = mem, true
	}
}

// close passes the train, if there is one, to the Sink. Nothing waits for more
// input than what has been read.
func (o *Opener) close() {
	t := &o.train
	if t.end == 0 {
		return
	}
	m := packet.Merged{Len: t.end, Count: t.count}
	if t.count > 1 {
		m.HeaderLen, m.Segment = t.headers, t.segment
		t.finish()
	}
	if !t.reserved {
		copy(o.sink.Reserve(t.end)[:t.end], t.home)
	}
	p := t.peer
	t.end, t.mem, t.peer, t.reserved = 0, nil, nil, false
	o.sink.Commit(p, m)
}
