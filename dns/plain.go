package dns

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/packet"
)

// errTruncated says that an answer is longer than UDP carries.
var errTruncated = errors.New("dns: answer is truncated")

// A plainRace asks one server over UDP and, when that takes long or is of no use,
// over TCP as well (SVC-75).
type plainRace struct {
	r       *Resolver
	q       *query
	to      netip.AddrPort
	group   *actor.Group
	replies chan reply
	pending int
	tcp     bool   // TCP has been started
	cut     []byte // a truncated answer: better than none
}

// askPlain asks one server by plain DNS.
func (r *Resolver) askPlain(ctx context.Context, q *query, to netip.AddrPort) (msg []byte, err error) {
	race := plainRace{r: r, q: q, to: to, replies: make(chan reply, 2)}
	err = actor.Run(ctx, func(ctx context.Context, g *actor.Group) (err error) {
		race.group = g
		msg, err = race.run(ctx)
		return err
	})
	if err != nil && race.cut != nil {
		return race.cut, nil
	}
	return msg, err
}

func (p *plainRace) run(ctx context.Context) ([]byte, error) {
	p.start(p.overUDP)
	patience := time.NewTimer(udpPatience)
	defer patience.Stop()
	if !p.q.overUDP { // whoever asks over TCP wants what UDP cannot carry
		p.startTCP()
	}
	var first error
	for p.pending > 0 {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-patience.C:
			p.startTCP()
		case a := <-p.replies:
			if p.pending--; a.err == nil {
				return a.msg, nil
			}
			if first == nil {
				first = a.err
			}
			p.startTCP()
		}
	}
	return nil, first
}

// start lets one way of asking run.
func (p *plainRace) start(ask func(context.Context) ([]byte, error)) {
	p.pending++
	p.group.Go(func(ctx context.Context) error {
		msg, err := ask(ctx)
		p.replies <- reply{msg, err}
		return nil
	})
}

func (p *plainRace) startTCP() {
	if !p.tcp {
		p.tcp = true
		p.start(p.overTCP)
	}
}

// overUDP asks over UDP. A truncated answer is good enough for a client that
// asked over UDP: it knows what to do.
func (p *plainRace) overUDP(ctx context.Context) ([]byte, error) {
	p.r.count.udp.Add(1)
	conn, err := p.r.dialUDP(ctx, p.to)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	id := newID()
	if _, err := conn.Write(p.q.outgoing(id)); err != nil {
		return nil, err
	}
	buf := make([]byte, maxUDP+1) // one more, to see that there is more
	for {
		n, err := conn.Read(buf)
		switch {
		case err != nil:
			return nil, err
		case !answers(buf[:n], id, &p.q.question):
			p.r.count.mismatched.Add(1)
			continue
		case n > maxUDP:
			n = maxUDP
			buf[2] |= bitTruncated
		}
		if truncated(buf[:n]) && !p.q.overUDP {
			p.cut = buf[:n]
			return nil, errTruncated
		}
		return buf[:n], nil
	}
}

// overTCP asks over TCP (RFC 1035 section 4.2.2).
func (p *plainRace) overTCP(ctx context.Context) ([]byte, error) {
	p.r.count.tcp.Add(1)
	ctx, cancel := context.WithTimeout(ctx, tcpTimeout)
	defer cancel()
	conn, err := p.r.dialTCP(ctx, p.to)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	id := newID()
	if err := writeMessage(conn, p.q.outgoing(id)); err != nil {
		return nil, err
	}
	msg, err := readMessage(conn)
	if err != nil {
		return nil, err
	}
	if !answers(msg, id, &p.q.question) {
		p.r.count.mismatched.Add(1)
		return nil, errors.New("dns: answer is to another question")
	}
	return msg, nil
}

// newID returns an ID that nobody can guess (RFC 5452 section 9.2).
func newID() uint16 {
	var b [2]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint16(b[:])
}

// writeMessage writes a message and its length before it, at once.
func writeMessage(w io.Writer, msg []byte) error {
	framed := append(binary.BigEndian.AppendUint16(make([]byte, 0, len(msg)+2), uint16(len(msg))), msg...)
	_, err := w.Write(framed)
	return err
}

// readMessage reads a message with its length before it.
func readMessage(r io.Reader) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	msg := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(r, msg)
	return msg, err
}

// dialTCP connects to a server, through the tunnel if it is there (SVC-76).
func (r *Resolver) dialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	if r.config.InTunnel(to.Addr()) {
		return r.config.Tunnel(ctx, "tcp", to)
	}
	return r.config.Network.Dial(ctx, "tcp", to.String())
}

// dialUDP is dialTCP for UDP. Every question has a socket of its own, so that its
// port is as hard to guess as its ID (RFC 5452 section 9.2).
func (r *Resolver) dialUDP(ctx context.Context, to netip.AddrPort) (io.ReadWriteCloser, error) {
	if r.config.InTunnel(to.Addr()) {
		return r.config.Tunnel(ctx, "udp", to)
	}
	family := "udp4"
	if to.Addr().Is6() {
		family = "udp6"
	}
	conn, err := r.config.Network.ListenUDP(ctx, family, 0)
	if err != nil {
		return nil, err
	}
	return &hostConn{udp: conn, to: to}, nil
}

// A hostConn is a socket of the host that hears one server only. One goroutine
// may read.
type hostConn struct {
	udp  host.UDPConn
	to   netip.AddrPort
	more [][]byte // what came with the last datagram
}

// readBuffers have room for what a socket of the host may join.
var readBuffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// Read waits for a datagram of the server; bytes that do not fit b are lost.
func (c *hostConn) Read(b []byte) (int, error) {
	for len(c.more) == 0 {
		if err := c.receive(); err != nil {
			return 0, err
		}
	}
	n := copy(b, c.more[0])
	c.more = c.more[1:]
	return n, nil
}

// receive waits for datagrams and keeps those of the server.
func (c *hostConn) receive() error {
	buf := readBuffers.Get().(*[64 << 10]byte)
	defer readBuffers.Put(buf)
	ms := [1]host.Message{{Buf: buf[:]}}
	n, err := c.udp.ReadBatch(ms[:])
	if err != nil || n == 0 || ms[0].From != c.to || ms[0].Segment <= 0 {
		return err
	}
	for datagram := range slices.Chunk(buf[:ms[0].N], ms[0].Segment) {
		c.more = append(c.more, bytes.Clone(datagram))
	}
	return nil
}

// Write sends a datagram to the server.
func (c *hostConn) Write(b []byte) (int, error) {
	return len(b), c.udp.WriteBursts(c.to, []packet.Burst{{Buf: b, Size: len(b), Count: 1}})
}

// Close ends Read.
func (c *hostConn) Close() error { return c.udp.Close() }
