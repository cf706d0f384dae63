package relay

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

// Limits of PeerGone(NotHere) notices for one client (DERP-71).
const (
	notHerePerSecond = 1
	notHereBurst     = 3
)

// sampleEvery is of how many packets one is timed in its queue.
const sampleEvery = 16

// A client that sends faster than its receiver takes is slowed down instead of
// having its packets dropped, for as long as nothing else of it could suffer:
// it has sent a row of packets to this receiver alone, and the receiver is
// taking (DERP-01).
const (
	patientAfter = DefaultQueueDepth    // packets in a row
	roomWait     = 5 * time.Millisecond // for each packet
)

// A client is one connection after its login. Its reader runs on the goroutine
// of serve, its sender on one that comes and goes.
type client struct {
	server    *Server
	conn      net.Conn
	key       key.NodePublic
	remote    netip.AddrPort
	mesh      bool // has shown the mesh key
	prober    bool
	notIdeal  bool
	connected time.Time
	duplicate atomic.Bool // its key has other connections

	queue    outbox
	counters counters
	read     readState
	heardOf  heardOf
	noRTT    bool // of sampleRTT: there is none to be had

	endMu sync.Mutex
	cause error         // why we ended it
	ended chan struct{} // made by ending, closed when there is a cause
}

// readState is what only the reader uses.
type readState struct {
	in      reader
	isHome  bool
	last    route          // of the last packet
	lastKey key.NodePublic // its destination
	row     int            // packets in a row to it
	seen    int            // packets
	notHere *rate.Limiter
	limiter limiter
	wait    *time.Timer
}

// heardOf are the sources whose departure the client will be told (DERP-69). It
// is for the sender, and for leave when that has ended.
type heardOf struct {
	sources map[key.NodePublic]struct{}
	last    key.NodePublic // is in sources; zero for none
}

// serve runs a client that has logged in until its connection ends.
func (c *client) serve(context.Context) error {
	s := c.server
	c.queue.taken = time.Now() // from now on there is patience with it
	s.join(c)
	defer s.leave(c)
	if err := c.sendServerInfo(); err != nil {
		return err
	}
	c.queue.open(derp.KeepAlivePeriod + rand.N(keepAliveJitter))
	err := c.readFrames()
	c.endMu.Lock()
	defer c.endMu.Unlock()
	if c.cause != nil {
		return c.cause
	}
	return err
}

// end closes the connection for a reason of ours; the first one counts.
func (c *client) end(cause error) {
	c.endMu.Lock()
	if c.cause == nil {
		c.cause = cause
		if c.ended != nil {
			close(c.ended)
		}
	}
	c.endMu.Unlock()
	hangUp(c.conn)
}

// endSoon is end for those who must not wait for the transport.
func (c *client) endSoon(cause error) {
	c.server.group.Go(func(context.Context) error {
		c.end(cause)
		return nil
	})
}

// ending returns a channel that is closed when we have ended the connection.
func (c *client) ending() <-chan struct{} {
	c.endMu.Lock()
	defer c.endMu.Unlock()
	if c.ended == nil {
		c.ended = make(chan struct{})
		if c.cause != nil {
			close(c.ended)
		}
	}
	return c.ended
}

// sendServerInfo completes the login, before any other frame (DERP-23).
func (c *client) sendServerInfo() error {
	info := derp.ServerInfo{Version: derp.ProtocolVersion}
	if l := c.server.limit.Load(); c.server.advertise && !c.mesh { // DERP-68
		info.TokenBucketBytesPerSecond, info.TokenBucketBytesBurst = l.BytesPerSecond, l.Burst
	}
	b, err := derp.AppendServerInfo(nil, c.server.private, c.key, info)
	if err != nil {
		return err
	}
	return c.write(b)
}

// write writes whole frames before the write deadline (DERP-61).
func (c *client) write(b []byte) error {
	timeout := c.server.writeTimeout
	if c.mesh {
		timeout = meshWriteTimeout
	}
	if timeout > 0 {
		c.conn.SetWriteDeadline(time.Now().Add(timeout))
	}
	if _, err := c.conn.Write(b); err != nil {
		return writeError(err)
	}
	return nil
}

// readFrames takes frames until the connection ends or breaks a rule (DERP-42).
// There is no read deadline: a dead client fails the keep-alive write.
func (c *client) readFrames() error {
	for {
		t, n, err := c.read.in.header()
		if err != nil {
			return err
		}
		if err := c.handle(t, n); err != nil {
			return fmt.Errorf("relay: client %s: %w", c.key.Short(), err)
		}
	}
}

// A rule says what payload length a frame of a client may have, and whether it
// takes the mesh key to send it (DERP-08, section 5).
type rule struct {
	min, max uint32
	mesh     bool
}

// ruleOf returns the rule for a type of frame; unknown ones are skipped.
func ruleOf(t derp.FrameType) rule {
	switch t {
	case derp.FrameSendPacket:
		return rule{min: key.Size, max: key.Size + derp.MaxPacketSize}
	case derp.FrameForwardPacket:
		return rule{min: 2 * key.Size, max: 2*key.Size + derp.MaxPacketSize, mesh: true}
	case derp.FrameNotePreferred:
		return rule{min: 1, max: 1}
	case derp.FramePing:
		return rule{min: derp.PingSize, max: maxPing}
	case derp.FrameWatchConns:
		return rule{mesh: true}
	case derp.FrameClosePeer:
		return rule{min: key.Size, max: key.Size, mesh: true}
	}
	return rule{max: derp.MaxFrame}
}

// check reports a frame that breaks its rule.
func (c *client) check(t derp.FrameType, n uint32) error {
	switch r := ruleOf(t); {
	case r.mesh && !c.mesh:
		return because(ClosedNoMeshKey, fmt.Errorf("%v frame without the mesh key", t))
	case n > r.max:
		return because(ClosedOversized, fmt.Errorf("%v frame of %d bytes, want at most %d", t, n, r.max))
	case n < r.min:
		return because(ClosedMalformed, fmt.Errorf("%v frame of %d bytes, want at least %d", t, n, r.min))
	}
	return nil
}

func (c *client) handle(t derp.FrameType, n uint32) error {
	if err := c.check(t, n); err != nil {
		return err
	}
	if !c.mesh {
		c.read.limiter.wait(c, n)
	}
	if c.duplicate.Load() {
		c.server.registry.heard(c)
	}
	switch t {
	case derp.FrameSendPacket:
		return c.onSendPacket(n)
	case derp.FrameForwardPacket:
		return c.onForwardPacket(n)
	case derp.FrameNotePreferred:
		return c.onPreferred()
	case derp.FramePing:
		return c.onPing(n)
	case derp.FrameWatchConns:
		c.server.watch(c)
		return nil
	case derp.FrameClosePeer:
		return c.onClosePeer()
	case derp.FramePong:
	default:
		c.server.stats.unknownFrames.Add(1)
	}
	return c.read.in.discard(n)
}

func (c *client) onPreferred() error {
	b, err := c.read.in.take(1)
	if err != nil {
		return noEOF(err)
	}
	home, err := derp.ParseNotePreferred(b)
	if err != nil {
		return err
	}
	c.server.stats.home(c, home)
	return nil
}

func (c *client) onPing(n uint32) error {
	b, err := c.read.in.take(derp.PingSize)
	if err != nil {
		return noEOF(err)
	}
	data, err := derp.ParsePing(derp.FramePing, b)
	if err != nil {
		return err
	}
	c.server.stats.pings.Add(1)
	c.queue.pushPong(data)
	return c.read.in.discard(n - derp.PingSize)
}

func (c *client) onClosePeer() error {
	target, err := c.read.in.key()
	if err != nil {
		return err
	}
	c.server.closePeer(target, c)
	return nil
}

// restarting tells the client of a restart; the channel is closed when it has
// been written.
func (c *client) restarting(spread, tryFor time.Duration) <-chan struct{} {
	r := derp.Restarting{TryFor: tryFor}
	if spread > 0 {
		r.ReconnectIn = rand.N(spread)
	}
	return c.queue.pushRestarting(r)
}
