package relay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

// writeSize is the size in bytes of a burst's write buffer: what one TLS record
// takes (DERP-164, RFC 8446 section 5.1). Buffers are borrowed for a burst; an
// idle client holds none (DERP-57).
const writeSize = 16 << 10

var writePool = sync.Pool{New: func() any { b := make([]byte, 0, writeSize); return &b }}

// Limits of PeerGone(NotHere) notices for one client (DERP-71).
const (
	notHerePerSecond = 1
	notHereBurst     = 3
)

// A client is one connection after its login. It has two loops: read runs on
// the goroutine of Accept, send on its child.
type client struct {
	server    *Server
	conn      net.Conn
	frames    *derp.FrameReader
	key       key.NodePublic
	info      derp.ClientInfo
	remote    netip.AddrPort
	notIdeal  bool
	connected time.Time

	queue  outbox
	isHome atomic.Bool

	// of the reader
	lastKey key.NodePublic // destination of the last packet
	lastSet *clientSet     // and its connections
	notHere *rate.Limiter

	// of the sender, and of leave when the sender has ended
	heard map[key.NodePublic]struct{} // sources whose departure is watched
	load  load

	toldOnce sync.Once
	told     chan struct{} // closed when a Restarting was written
}

func newClient(s *Server, in Incoming, frames *derp.FrameReader, k key.NodePublic, info derp.ClientInfo) *client {
	c := &client{
		server:    s,
		conn:      in.Conn,
		frames:    frames,
		key:       k,
		info:      info,
		remote:    in.Remote,
		notIdeal:  in.IdealNode != "",
		connected: time.Now(),
		notHere:   rate.NewLimiter(notHerePerSecond, notHereBurst),
		heard:     make(map[key.NodePublic]struct{}),
		told:      make(chan struct{}),
	}
	c.queue.init(s.queueDepth)
	return c
}

// read takes frames until the connection ends or breaks a rule (DERP-42).
// There is no read deadline: a dead client fails the keep-alive write.
func (c *client) read() error {
	for {
		t, n, err := c.frames.Header()
		if err != nil {
			return err
		}
		if err := c.handle(t, n); err != nil {
			return fmt.Errorf("relay: client %s: %w", c.key.Short(), err)
		}
	}
}

// maxLen returns the largest payload a client may send in a frame of a known
// type.
func maxLen(t derp.FrameType) uint32 {
	switch t {
	case derp.FrameSendPacket:
		return key.Size + derp.MaxPacketSize
	case derp.FrameNotePreferred:
		return 1
	case derp.FramePing:
		return maxPing
	}
	return derp.MaxFrame
}

func (c *client) handle(t derp.FrameType, n uint32) error {
	if n > maxLen(t) {
		return fmt.Errorf("%v frame of %d bytes, want at most %d", t, n, maxLen(t))
	}
	switch t {
	case derp.FrameSendPacket, derp.FrameNotePreferred, derp.FramePing:
	case derp.FrameForwardPacket, derp.FrameWatchConns, derp.FrameClosePeer:
		return fmt.Errorf("%v frame without the mesh key", t)
	case derp.FramePong:
		return c.frames.Discard(n)
	default:
		c.server.stats.unknownFrames.Add(1)
		return c.frames.Discard(n)
	}
	b, err := c.frames.Payload(n)
	if err != nil {
		return err
	}
	switch t {
	case derp.FrameSendPacket:
		return c.onPacket(b)
	case derp.FrameNotePreferred:
		return c.onPreferred(b)
	}
	return c.onPing(b)
}

// onPacket routes a packet to the active connection of its destination
// (DERP-48).
func (c *client) onPacket(b []byte) error {
	dst, data, err := derp.ParsePacket(derp.FrameSendPacket, b)
	if err != nil {
		return err
	}
	st := &c.server.stats
	st.packetsReceived.Add(1)
	st.bytesReceived.Add(uint64(len(data)))
	f := newFrame(c.key, data)
	to := c.find(dst)
	if to == nil {
		st.drop(dropUnknown, f)
		c.reportNotHere(dst, f)
		f.release()
		return nil
	}
	dropped, closed := to.queue.push(f)
	if dropped != nil {
		st.drop(dropReasonOf(closed), dropped)
		dropped.release()
	}
	return nil
}

// find returns the active connection of a key, nil for none.
func (c *client) find(dst key.NodePublic) *client {
	if dst == c.lastKey && c.lastSet != nil {
		if to := c.lastSet.active.Load(); to != nil {
			return to
		}
	}
	c.lastKey, c.lastSet = dst, c.server.registry.lookup(dst)
	if c.lastSet == nil {
		return nil
	}
	return c.lastSet.active.Load()
}

// reportNotHere tells the client that its disco packet had nowhere to go; other
// packets are dropped silently (DERP-71).
func (c *client) reportNotHere(dst key.NodePublic, f *frame) {
	if f.disco && c.notHere.Allow() {
		c.queue.pushGone(dst, derp.GoneNotHere)
	}
}

func (c *client) onPreferred(b []byte) error {
	home, err := derp.ParseNotePreferred(b)
	if err != nil {
		return err
	}
	c.server.stats.home(c, home)
	return nil
}

func (c *client) onPing(b []byte) error {
	data, err := derp.ParsePing(derp.FramePing, b)
	if err != nil {
		return err
	}
	c.server.stats.pings.Add(1)
	c.queue.pushPong(data)
	return nil
}

// send writes what is queued, and a keep-alive at intervals that differ between
// clients. All that waits goes out in as few writes as it fits (DERP-56).
func (c *client) send(ctx context.Context) error {
	every := keepAlive + rand.N(keepAliveJitter)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		c.queue.take(&c.load)
		if !c.load.empty() {
			if err := c.writeLoad(); err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.queue.wake:
		case <-tick.C:
			if err := c.write(derp.AppendHeader(nil, derp.FrameKeepAlive, 0)); err != nil {
				return err
			}
		}
	}
}

// writeLoad writes c.load through a borrowed buffer.
func (c *client) writeLoad() error {
	p := writePool.Get().(*[]byte)
	defer writePool.Put(p)
	b := (*p)[:0]
	for _, g := range c.load.gone {
		b = c.appendGone(b, g)
	}
	b = append(b, c.load.own...)
	from := 0
	for i, f := range c.load.frames {
		if len(b) > 0 && len(b)+len(f.b) > writeSize {
			if err := c.writeFrames(b, from, i); err != nil {
				return err
			}
			b, from = b[:0], i
		}
		b = append(b, f.b...)
		c.watchSource(f.src())
	}
	if err := c.writeFrames(b, from, len(c.load.frames)); err != nil {
		return err
	}
	c.server.stats.pongs.Add(uint64(c.load.pongs))
	if c.load.restarting {
		c.toldOnce.Do(func() { close(c.told) })
	}
	return nil
}

// writeFrames writes b, which ends with the frames from to end of the load.
func (c *client) writeFrames(b []byte, from, end int) error {
	st := &c.server.stats
	if err := c.write(b); err != nil {
		for _, f := range c.load.frames[from:] {
			st.drop(dropWrite, f)
		}
		return err
	}
	st.writes.Add(1)
	for _, f := range c.load.frames[from:end] {
		st.packetsSent.Add(1)
		st.bytesSent.Add(uint64(f.dataLen()))
		f.release()
	}
	return nil
}

// appendGone appends a notice and forgets the peer, so that its next departure
// is told as well (DERP-70).
func (c *client) appendGone(b []byte, g gone) []byte {
	if g.why == derp.GoneDisconnected {
		delete(c.heard, g.peer)
		c.server.stats.goneDisconnected.Add(1)
	} else {
		c.server.stats.goneNotHere.Add(1)
	}
	return derp.AppendPeerGone(b, g.peer, g.why)
}

// watchSource has the client told when a source it received from leaves.
func (c *client) watchSource(src key.NodePublic) {
	if _, ok := c.heard[src]; ok {
		return
	}
	if c.server.registry.watch(src, c) {
		c.heard[src] = struct{}{}
		return
	}
	c.queue.pushGone(src, derp.GoneDisconnected)
}

// write writes whole frames before the write deadline. A client that cannot
// take them in time is disconnected, never waited for (DERP-63).
func (c *client) write(b []byte) error {
	if d := c.server.writeTimeout; d > 0 {
		c.conn.SetWriteDeadline(time.Now().Add(d))
	}
	_, err := c.conn.Write(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.server.stats.writeTimeouts.Add(1)
	}
	return err
}

// restarting tells the client of a restart; the channel is closed when it has
// been written.
func (c *client) restarting(spread, tryFor time.Duration) <-chan struct{} {
	r := derp.Restarting{TryFor: tryFor}
	if spread > 0 {
		r.ReconnectIn = rand.N(spread)
	}
	c.queue.pushRestarting(r)
	return c.told
}
