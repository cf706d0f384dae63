package derp

import (
	"errors"
	"time"

	"github.com/seed94491740/tsnode/key"
)

// A Message is what a relay says: a ReceivedPacket, PeerGone, PeerPresent,
// ServerInfo, Ping, Pong, KeepAlive, Health or Restarting (DERP-34).
type Message interface{ isMessage() }

// A ReceivedPacket is a packet from another client.
type ReceivedPacket struct {
	Source key.NodePublic
	Data   []byte // borrowed: valid until the next Recv
}

// A PeerGone says that a client cannot be reached through the relay.
type PeerGone struct {
	Peer   key.NodePublic
	Reason GoneReason
}

// A Ping is to be answered with SendPong of the same data (DERP-35).
type Ping [PingSize]byte

// A Pong answers SendPing.
type Pong [PingSize]byte

// A KeepAlive says that the relay lives; it needs no answer.
type KeepAlive struct{}

// Health says what is wrong with the connection in the relay's view; an empty
// problem ends the one before (DERP-16).
type Health struct{ Problem string }

func (ReceivedPacket) isMessage() {}
func (PeerGone) isMessage()       {}
func (PeerPresent) isMessage()    {}
func (ServerInfo) isMessage()     {}
func (Ping) isMessage()           {}
func (Pong) isMessage()           {}
func (KeepAlive) isMessage()      {}
func (Health) isMessage()         {}
func (Restarting) isMessage()     {}

// Recv returns the relay's next message. A relay that says nothing for 120 s,
// to within 5 s, is gone. Every call after one that failed gives the same
// error (DERP-33). It is for one goroutine at a time.
//
// Frames that are unknown or too short are counted and skipped.
func (c *Conn) Recv() (Message, error) {
	if c.armed.IsZero() {
		c.onIdle(c.arm)
		c.arm()
	}
	for {
		t, b, err := c.ReadFrame()
		if err != nil {
			return nil, c.fail(err)
		}
		m, err := c.parse(t, b)
		switch {
		case err != nil && t == FrameServerInfo:
			return nil, c.fail(err)
		case err != nil:
			c.skipped.Add(1)
		case m != nil:
			return m, nil
		}
	}
}

// arm sets the read deadline, if the one there is old enough to be worth it.
func (c *Conn) arm() {
	if now := time.Now(); now.Sub(c.armed) >= rearm {
		c.armed = now
		c.SetReadDeadline(now.Add(silence + rearm))
	}
}

// Skipped returns how many frames Recv did not give to its caller: those of
// unknown types and those that were too short or too long.
func (c *Conn) Skipped() uint64 { return c.skipped.Load() }

// parse reads a frame of the relay; a ServerInfo also sets the limit of Send. A
// late ServerKey says nothing and gives nil (DERP-24). An error in any frame but
// ServerInfo is one to live with (DERP-09, DERP-34).
func (c *Conn) parse(t FrameType, b []byte) (Message, error) {
	switch t {
	case FrameRecvPacket:
		src, data, err := ParsePacket(t, b)
		return asMessage(ReceivedPacket{src, data}, err)
	case FrameServerInfo:
		return asMessage(c.openServerInfo(b))
	case FramePeerGone:
		peer, why, err := ParsePeerGone(b)
		return asMessage(PeerGone{peer, why}, err)
	case FramePeerPresent:
		return asMessage(ParsePeerPresent(b))
	case FramePing:
		data, err := ParsePing(t, b)
		return asMessage(Ping(data), err)
	case FramePong:
		data, err := ParsePing(t, b)
		return asMessage(Pong(data), err)
	case FrameRestarting:
		return asMessage(ParseRestarting(b))
	case FrameHealth:
		return Health{string(b)}, nil
	case FrameKeepAlive:
		return KeepAlive{}, nil
	case FrameServerKey:
		return nil, nil
	}
	return nil, errUnknownFrame
}

func (c *Conn) openServerInfo(b []byte) (ServerInfo, error) {
	info, err := c.OpenServerInfo(b)
	if err == nil {
		c.limit.set(info.TokenBucketBytesPerSecond, info.TokenBucketBytesBurst)
	}
	return info, err
}

// asMessage returns no message where there is an error.
func asMessage[M Message](m M, err error) (Message, error) {
	if err != nil {
		return nil, err
	}
	return m, nil
}

var errUnknownFrame = errors.New("derp: unknown frame type")
