package netstack

import (
	"encoding/binary"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/packet"
)

// rawPeer is the other end of one connection, packet by packet.
type rawPeer struct {
	t          *testing.T
	link       *Link
	local      netip.AddrPort // its own
	remote     netip.AddrPort // the stack's
	seq, acked uint32         // next to send; next expected
	told       uint32         // what the stack has acknowledged
	window     int            // as the stack told it, in bytes
	scale      int
	out        [16]packet.Outbound
}

// send sends one segment of the peer.
func (p *rawPeer) send(seq uint32, flags uint8, options, data []byte) {
	p.t.Helper()
	seg := make([]byte, 20, 20+len(options)+len(data))
	binary.BigEndian.PutUint16(seg[0:], p.local.Port())
	binary.BigEndian.PutUint16(seg[2:], p.remote.Port())
	binary.BigEndian.PutUint32(seg[4:], seq)
	binary.BigEndian.PutUint32(seg[8:], p.acked)
	seg[12] = byte((20 + len(options)) / 4 << 4)
	seg[13] = flags
	binary.BigEndian.PutUint16(seg[14:], 65535)
	seg = append(append(seg, options...), data...)
	pkt, err := packet.AppendIP(nil, p.local.Addr(), p.remote.Addr(), packet.TCP, len(seg))
	if err != nil {
		p.t.Fatal(err)
	}
	pkt = append(pkt, seg...)
	d := p.link.NewDelivery()
	copy(d.Reserve(len(pkt)), pkt)
	d.Commit(packet.Merged{Len: len(pkt), Count: 1})
	d.Flush()
}

// receive takes what the stack sends for a while, acknowledges none of it, and
// returns how many bytes of new data there were.
func (p *rawPeer) receive(until func() bool) (data int) {
	p.t.Helper()
	for deadline := time.After(patience); ; {
		n := p.link.Next(p.out[:])
		for i := range p.out[:n] {
			data += p.take(&p.out[i])
		}
		p.link.Done(n)
		if until() {
			return data
		}
		if n > 0 {
			continue
		}
		select {
		case <-p.link.Ready():
		case <-deadline:
			p.t.Fatal("the stack sends nothing more")
		}
	}
}

func (p *rawPeer) take(o *packet.Outbound) int {
	seg := tcpHeader(o.Head)
	if seg == nil {
		return 0
	}
	size := o.Len() - len(o.Head)
	seq := binary.BigEndian.Uint32(seg[4:])
	if seg[13]&packet.SYN != 0 {
		p.acked = seq + 1
		return 0
	}
	p.told = binary.BigEndian.Uint32(seg[8:])
	p.window = int(binary.BigEndian.Uint16(seg[14:])) << p.scale
	if end := seq + uint32(size); int32(end-p.acked) > 0 {
		n := int(end - p.acked)
		p.acked = end
		return n
	}
	return 0
}

// The program writes without reading, so the receive window closes down to less
// than a unit of its scale. ACKs of the peer, which has sent into that rest,
// must still be taken: without the allowance for closed windows gVisor refuses
// them and the connection hangs for ever.
func TestACKsCountWhileWindowIsClosed(t *testing.T) {
	s := newStack(t, a4)
	ln, err := s.ListenTCP(netip.AddrPortFrom(a4, 80))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	detach := s.Link().Attach()
	defer detach()
	p := &rawPeer{t: t, link: s.Link(), local: netip.AddrPortFrom(b4, 4000), remote: netip.AddrPortFrom(a4, 80), seq: 1000, scale: 8}
	p.send(p.seq, packet.SYN, []byte{2, 4, 4, 176, 1, 3, 3, 8}, nil) // MSS 1200, window scale 8
	p.seq++
	p.receive(func() bool { return p.acked != 0 })
	p.send(p.seq, packet.ACK, nil, nil)
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	// Fill the receive window. The last bytes go beyond what is told, as those
	// of a peer do that was told more before.
	chunk := make([]byte, 1200)
	fill := func(n int) {
		p.send(p.seq, packet.ACK|packet.PSH, nil, chunk[:n])
		p.seq += uint32(n)
		p.receive(func() bool { return p.told == p.seq })
	}
	for fill(len(chunk)); p.window >= len(chunk); {
		fill(len(chunk))
	}
	for p.window > 0 {
		fill(max(p.window-100, 100))
	}

	// The program writes; the peer acknowledges with the sequence number behind
	// bytes that got lost.
	wrote := make(chan error, 1)
	go func() { _, err := c.Write(make([]byte, 10_000)); wrote <- err }()
	got := 0
	for got < 10_000 {
		before := got
		got += p.receive(func() bool { return true })
		if got > before {
			p.send(p.seq+64, packet.ACK, nil, nil)
		}
	}
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	p.send(p.seq+64, packet.ACK, nil, nil)
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	// All is acknowledged: nothing is sent again. A read opens the window, and
	// the connection goes on.
	if _, err := io.ReadFull(c, make([]byte, 64<<10)); err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, c)
	p.receive(func() bool { return p.window > 0 })
	if st := s.gv.Stats().TCP.Retransmits.Value(); st != 0 {
		t.Errorf("%d retransmissions of acknowledged data", st)
	}
}

func TestClosedWindowsRemembersOnlyZeroWindows(t *testing.T) {
	var c closedWindows
	f := windowFlow{netip.AddrPortFrom(a4, 1), netip.AddrPortFrom(b4, 2)}
	c.note(f, 7, false)
	if c.open.Load() != 0 {
		t.Error("a flow with an open window is remembered")
	}
	c.note(f, 7, true)
	c.note(f, 8, true)
	if c.open.Load() != 1 || c.flows[f] != 8 {
		t.Errorf("flows: %v", c.flows)
	}
	c.note(f, 9, false)
	if c.open.Load() != 0 || len(c.flows) != 0 {
		t.Errorf("flows: %v", c.flows)
	}
	for i := range 2 * maxClosed {
		c.note(windowFlow{netip.AddrPortFrom(a4, uint16(i)), netip.AddrPortFrom(b4, 2)}, 1, true)
	}
	if len(c.flows) != maxClosed {
		t.Errorf("%d flows are remembered, want at most %d", len(c.flows), maxClosed)
	}
}
