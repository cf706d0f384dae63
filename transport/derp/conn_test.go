package derp_test

import (
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

// login connects to a scripted relay at the level of frames.
func (p *pipes) login(t *testing.T, host string) *derp.Conn {
	t.Helper()
	d := &derp.Dialer{Network: p, PlainHTTP: true}
	s, err := d.Dial(t.Context(), plainRegion(1, host))
	if err != nil {
		t.Fatal(err)
	}
	c, err := derp.Login(t.Context(), s, key.NewNode(), derp.ClientInfo{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// collect returns every frame of the client until it hangs up.
func (c *script) collect() (frames [][]byte) {
	for {
		b, err := c.next()
		if err != nil {
			return frames
		}
		frames = append(frames, derp.AppendFrame(nil, c.log[len(c.log)-1], b))
	}
}

// compareKeys lets cmp compare keys.
var compareKeys = cmpopts.EquateComparable(key.NodePublic{}, netip.AddrPort{})

// TestMessages: what Recv makes of each frame of a relay: those that are short
// or unknown are skipped, and bytes from the future are (DERP-09, DERP-33,
// DERP-34, DERP-174).
func TestMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		src := key.NewNode().Public()
		raw := src.Raw()
		defer p.serveScript("one:3340", func(c *script) {
			for _, b := range [][]byte{
				derp.AppendServerKey(nil, src), // late, after a fast start
				derp.AppendRecvPacket(nil, src, []byte("packet")),
				derp.AppendRecvPacket(nil, src, nil),
				derp.AppendFrame(nil, derp.FrameRecvPacket, raw[:31]),
				derp.AppendFrame(nil, derp.FramePeerGone, raw[:]),
				derp.AppendPeerGone(nil, src, derp.GoneNotHere),
				derp.AppendFrame(nil, derp.FramePeerGone, raw[:31]),
				derp.AppendFrame(nil, derp.FramePeerPresent, raw[:]),
				derp.AppendPeerPresent(nil, derp.PeerPresent{Peer: src, Addr: netip.MustParseAddrPort("192.0.2.1:7"), Flags: derp.PresentProber}),
				derp.AppendFrame(nil, derp.FramePeerPresent, raw[:31]),
				derp.AppendFrame(nil, derp.FrameKeepAlive, nil),
				derp.AppendFrame(nil, derp.FramePing, []byte("question and more")),
				derp.AppendFrame(nil, derp.FramePing, []byte("ques")),
				derp.AppendFrame(nil, derp.FramePong, []byte("response")),
				derp.AppendFrame(nil, derp.FramePong, nil),
				derp.AppendFrame(nil, derp.FrameHealth, []byte("duplicate")),
				derp.AppendFrame(nil, derp.FrameHealth, nil),
				derp.AppendRestarting(nil, derp.Restarting{ReconnectIn: time.Second, TryFor: 5 * time.Second}),
				derp.AppendFrame(nil, derp.FrameRestarting, raw[:7]),
				derp.AppendFrame(nil, 0x66, []byte("unknown")),
				derp.AppendFrame(nil, 0x66, make([]byte, 2*derp.MaxPacketSize)),
			} {
				c.Write(b)
			}
		})()
		c := p.login(t, "one")
		var got []derp.Message
		for {
			m, err := c.Recv()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Error(err)
				}
				break
			}
			if packet, ok := m.(derp.ReceivedPacket); ok {
				packet.Data = append([]byte{}, packet.Data...) // borrowed
				m = packet
			}
			got = append(got, m)
		}
		want := []derp.Message{
			derp.ServerInfo{Version: 2},
			derp.ReceivedPacket{Source: src, Data: []byte("packet")}, derp.ReceivedPacket{Source: src, Data: []byte{}},
			derp.PeerGone{Peer: src}, derp.PeerGone{Peer: src, Reason: derp.GoneNotHere},
			derp.PeerPresent{Peer: src},
			derp.PeerPresent{Peer: src, Addr: netip.MustParseAddrPort("192.0.2.1:7"), Flags: derp.PresentProber},
			derp.KeepAlive{}, derp.Ping([]byte("question")), derp.Pong([]byte("response")),
			derp.Health{Problem: "duplicate"}, derp.Health{}, derp.Restarting{ReconnectIn: time.Second, TryFor: 5 * time.Second},
		}
		if diff := cmp.Diff(want, got, compareKeys); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		if n := c.Skipped(); n != 8 {
			t.Errorf("%d frames skipped, want 8", n)
		}
		if _, err := c.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("Recv after it failed: %v", err)
		}
		if _, err := c.LocalAddr(); err == nil { // DERP-36
			t.Error("a failed connection has a local address")
		}
		if err := c.Send(src, nil); !errors.Is(err, io.EOF) {
			t.Errorf("Send on a failed connection: %v", err)
		}
	})
}

// TestRecvFails: a ServerInfo that does not open and a frame above 1 MiB end
// the connection (DERP-08).
func TestRecvFails(t *testing.T) {
	for name, tt := range map[string]struct {
		frame []byte
		err   string
	}{
		"ServerInfo": {derp.AppendFrame(nil, derp.FrameServerInfo, make([]byte, 60)), "was not sealed by relay"},
		"too long":   {derp.AppendHeader(nil, 0x66, derp.MaxFrame+1), "want at most 1048576"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipes()
				defer p.serveScript("one:3340", func(c *script) {
					c.Write(tt.frame)
					<-c.ctx.Done()
				})()
				c := p.login(t, "one")
				if m, err := c.Recv(); m != (derp.ServerInfo{Version: 2}) || err != nil {
					t.Fatal(m, err)
				}
				for range 2 { // the error stays
					if _, err := c.Recv(); err == nil || !strings.Contains(err.Error(), tt.err) {
						t.Errorf("error %v, want %q", err, tt.err)
					}
				}
			})
		})
	}
}

// TestRecvSilence: DERP-33: a relay that says nothing for two keep-alives is
// gone, one that says something every 119 s is not.
func TestRecvSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		defer p.serveScript("one:3340", func(c *script) {
			for range 5 {
				time.Sleep(119 * time.Second) // fake time
				c.Write(derp.AppendHeader(nil, derp.FrameKeepAlive, 0))
			}
			<-c.ctx.Done()
		})()
		c := p.login(t, "one")
		for range 1 + 5 {
			if _, err := c.Recv(); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		if m, err := c.Recv(); err == nil {
			t.Errorf("%v from a silent relay", m)
		}
		if d := time.Since(start); d < 120*time.Second || d > 125*time.Second {
			t.Errorf("gone after %v, want 120 to 125 s", d)
		}
	})
}

// TestConnSends: every frame that a client can send, as it goes over the wire
// (DERP-29, DERP-31, DERP-32).
func TestConnSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		frames := make(chan [][]byte, 1)
		defer p.serveScript("one:3340", func(c *script) { frames <- c.collect() })()
		c := p.login(t, "one")
		if _, err := c.Recv(); err != nil {
			t.Fatal(err)
		}
		k, largest := key.NewNode().Public(), make([]byte, derp.MaxPacketSize)
		for i, err := range []error{
			c.Send(k, []byte("data")), c.Send(k, largest), c.ForwardPacket(k, k, largest), c.SendPing([8]byte([]byte("question"))),
			c.SendPong([8]byte([]byte("response"))), c.NotePreferred(true), c.NotePreferred(false), c.WatchConnections(), c.ClosePeer(k),
		} {
			if err != nil {
				t.Errorf("call %d: %v", i, err)
			}
		}
		for _, err := range []error{c.Send(k, append(largest, 0)), c.ForwardPacket(k, k, append(largest, 0))} {
			if err == nil || !strings.Contains(err.Error(), "65537 bytes") {
				t.Errorf("a packet too large: %v", err)
			}
		}
		if _, err := c.LocalAddr(); err != nil {
			t.Error(err)
		}
		c.Close()
		if err := c.Send(k, nil); err == nil {
			t.Error("Send after Close")
		}
		want := [][]byte{
			derp.AppendSendPacket(nil, k, []byte("data")), derp.AppendSendPacket(nil, k, largest), derp.AppendForwardPacket(nil, k, k, largest),
			derp.AppendPing(nil, derp.FramePing, [8]byte([]byte("question"))), derp.AppendPing(nil, derp.FramePong, [8]byte([]byte("response"))),
			derp.AppendNotePreferred(nil, true), derp.AppendNotePreferred(nil, false),
			derp.AppendHeader(nil, derp.FrameWatchConns, 0), derp.AppendClosePeer(nil, k),
		}
		if got := <-frames; !cmp.Equal(got, want) {
			t.Errorf("%d frames arrived, want %d", len(got), len(want))
		}
	})
}

// TestConnSendLimit: DERP-29, DERP-30, DERP-173: Send drops silently what is
// above the relay's limit, all else is sent, and a later ServerInfo lifts it.
func TestConnSendLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		limit := derp.ServerInfo{Version: 2, TokenBucketBytesPerSecond: 1000, TokenBucketBytesBurst: 2500}
		frames := make(chan derp.FrameType, 100)
		defer p.serveScriptWith("one:3340", limit, func(c *script) {
			for {
				if _, err := c.next(); err != nil {
					return
				}
				last := c.log[len(c.log)-1]
				if last == derp.FramePing {
					c.Write(c.serverInfo(derp.ServerInfo{Version: 2}))
				}
				frames <- last
			}
		})()
		c := p.login(t, "one")
		defer c.Close()
		arrived := func() (n int) {
			synctest.Wait()
			for ; len(frames) > 0; n++ {
				<-frames
			}
			return n
		}
		send := func(n int) int {
			for range n {
				if err := c.Send(key.NewNode().Public(), make([]byte, 1000-derp.SendHeaderSize)); err != nil {
					t.Fatal(err)
				}
			}
			return arrived()
		}
		if m, err := c.Recv(); err != nil || m != limit {
			t.Fatal(m, err)
		}
		if n := send(5); n != 2 {
			t.Errorf("%d packets of 1000 bytes of a burst of 2500", n)
		}
		time.Sleep(time.Second) // fake time
		if n := send(5); n != 1 {
			t.Errorf("%d packets after a second, want 1", n)
		}
		if err := c.ForwardPacket(key.NodePublic{}, key.NodePublic{}, make([]byte, 5000)); err != nil || arrived() != 1 {
			t.Error("forwarding is limited, too:", err)
		}
		if err := c.SendPing([8]byte{}); err != nil {
			t.Fatal(err)
		}
		if m, err := c.Recv(); err != nil || m != (derp.ServerInfo{Version: 2}) {
			t.Fatal(m, err)
		}
		arrived()
		if n := send(5); n != 5 {
			t.Errorf("%d of 5 packets without a limit", n)
		}
	})
}

// TestWriteLimits: DERP-31: a relay that takes nothing is given up after 5 s of
// forwarding and after 30 s of anything else.
func TestWriteLimits(t *testing.T) {
	for name, tt := range map[string]struct {
		write func(*derp.Conn) error
		limit time.Duration
	}{
		"ForwardPacket": {func(c *derp.Conn) error { return c.ForwardPacket(key.NodePublic{}, key.NodePublic{}, nil) }, 5 * time.Second},
		"Send":          {func(c *derp.Conn) error { return c.Send(key.NodePublic{}, nil) }, 30 * time.Second},
		"SendPing":      {func(c *derp.Conn) error { return c.SendPing([8]byte{}) }, 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipes()
				defer p.serveScript("one:3340", func(c *script) { <-c.ctx.Done() })()
				c := p.login(t, "one")
				if _, err := c.Recv(); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				if err := tt.write(c); err == nil || !strings.Contains(err.Error(), "takes nothing") || time.Since(start) != tt.limit {
					t.Errorf("error %v after %v", err, time.Since(start))
				}
				if err := tt.write(c); err == nil {
					t.Error("the connection is still used")
				}
			})
		})
	}
}
