package derp

import (
	"fmt"
	"time"

	"github.com/seed94491740/tsnode/key"
)

// Times that one write of a Conn may take.
const (
	// stuck ends a connection whose relay takes nothing. One that reads slowly on
	// purpose (DERP-66) needs a while, one that reads nothing is gone.
	stuck = 30 * time.Second
	// forwardLimit is stuck for relays, which wait for each other no longer than
	// that (DERP-31).
	forwardLimit = 5 * time.Second
)

// Write sends whole frames in one write.
func (c *Conn) Write(frames []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.write(frames)
}

func (c *Conn) write(frames []byte) error {
	if _, err := c.stream.Write(frames); err != nil {
		return c.fail(err)
	}
	return nil
}

// Send sends a packet of at most MaxPacketSize bytes to the client dst. A
// packet beyond what the relay allows is dropped without an error (DERP-29,
// DERP-30).
func (c *Conn) Send(dst key.NodePublic, data []byte) error {
	if err := checkSize(dst, data); err != nil {
		return err
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	if !c.limit.allow(time.Now(), SendHeaderSize+len(data)) {
		return nil
	}
	c.buf = AppendSendPacket(c.buf[:0], dst, data)
	return c.writeWithin(stuck)
}

// ForwardPacket sends a packet of the client src of our relay to the client dst
// of the other one. It needs mesh rights.
func (c *Conn) ForwardPacket(src, dst key.NodePublic, data []byte) error {
	if err := checkSize(dst, data); err != nil {
		return err
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	c.buf = AppendForwardPacket(c.buf[:0], src, dst, data)
	return c.writeWithin(forwardLimit)
}

func checkSize(dst key.NodePublic, data []byte) error {
	if len(data) > MaxPacketSize {
		return fmt.Errorf("derp: packet of %d bytes for %v, want at most %d", len(data), dst.Short(), MaxPacketSize)
	}
	return nil
}

// SendPing asks the relay for a Pong with the same data.
func (c *Conn) SendPing(data [PingSize]byte) error { return c.sendPing(FramePing, data) }

// SendPong answers a Ping of the relay.
func (c *Conn) SendPong(data [PingSize]byte) error { return c.sendPing(FramePong, data) }

func (c *Conn) sendPing(t FrameType, data [PingSize]byte) error {
	return c.sendFrame(AppendPing(nil, t, data))
}

// NotePreferred tells the relay whether it is our home.
func (c *Conn) NotePreferred(home bool) error { return c.sendFrame(AppendNotePreferred(nil, home)) }

// WatchConnections asks the relay to say who is connected to it, now and from
// now on. Without mesh rights the relay hangs up.
func (c *Conn) WatchConnections() error { return c.sendFrame(AppendHeader(nil, FrameWatchConns, 0)) }

// ClosePeer has the relay end all connections of a client. Without mesh rights
// the relay hangs up.
func (c *Conn) ClosePeer(target key.NodePublic) error {
	return c.sendFrame(AppendClosePeer(nil, target))
}

func (c *Conn) sendFrame(frame []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.buf = append(c.buf[:0], frame...)
	return c.writeWithin(stuck)
}

// writeWithin writes c.buf, and ends the connection if that takes longer than
// d. The caller holds c.writing.
func (c *Conn) writeWithin(d time.Duration) error {
	if err := c.failure(); err != nil {
		return err
	}
	if c.guard == nil {
		c.guard = time.AfterFunc(d, func() { c.fail(errStuckWrite) })
	} else {
		c.guard.Reset(d)
	}
	defer c.guard.Stop()
	defer c.trim()
	return c.write(c.buf)
}

// trim lets go of what an unusually large packet has left.
func (c *Conn) trim() {
	if cap(c.buf) > 2*flushBytes {
		c.buf = nil
	}
}
