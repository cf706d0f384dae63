package derp_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/transport"
	"github.com/seed94491740/tsnode/transport/derp"
)

// A script is a connection of a relay that does what a test says.
type script struct {
	net.Conn
	*derp.FrameReader
	ctx     context.Context
	private key.NodePrivate // of the relay
	client  key.NodePublic
	info    derp.ClientInfo
	log     []derp.FrameType // frames of the client
	greeted chan struct{}    // closed when the first ServerInfo is out
}

// serveScript runs a relay that logs clients in and then plays a script for
// each, at whose end it hangs up.
func (p *pipes) serveScript(address string, play func(*script)) (stop func()) {
	return p.serveScriptWith(address, derp.ServerInfo{Version: 2}, play)
}

func (p *pipes) serveScriptWith(address string, info derp.ServerInfo, play func(*script)) (stop func()) {
	private := key.NewNode()
	p.relay = private.Public()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	return p.serveHTTP(address, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		running.Add(1)
		defer running.Done()
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		defer context.AfterFunc(ctx, func() { conn.Close() })()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
		conn.Write(derp.AppendServerKey(nil, private.Public()))
		c := &script{Conn: conn, ctx: ctx, private: private, greeted: make(chan struct{}), FrameReader: derp.NewFrameReader(bufio.NewReader(rw), nil)}
		b, err := c.next()
		if err != nil {
			return
		}
		if c.client, c.info, err = derp.ParseClientInfo(private, b); err != nil {
			return // sealed to another relay
		}
		go c.greet(info)
		play(c)
	}), func() error {
		cancel()
		running.Wait()
		return nil
	})
}

// greet sends the first ServerInfo, while the client may still be writing: a
// pipe has no buffer.
func (c *script) greet(info derp.ServerInfo) {
	defer close(c.greeted)
	c.Conn.Write(c.serverInfo(info))
}

func (c *script) serverInfo(info derp.ServerInfo) []byte {
	b, err := derp.AppendServerInfo(nil, c.private, c.client, info)
	if err != nil {
		panic(err)
	}
	return b
}

// Write sends frames behind the first ServerInfo.
func (c *script) Write(frames []byte) (int, error) {
	<-c.greeted
	return c.Conn.Write(frames)
}

// next returns the payload of the client's next frame and logs its type.
func (c *script) next() ([]byte, error) {
	t, n, err := c.Header()
	if err != nil {
		return nil, err
	}
	c.log = append(c.log, t)
	return c.Payload(n)
}

// TestServerFrames: what each frame of a relay does to a client, bad and unknown
// ones included (DERP-09, DERP-34, DERP-146, DERP-174).
func TestServerFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		src := key.NewNode().Public()
		pong, seen := make(chan string, 1), make(chan struct{})
		stopRelay := p.serveScript("one:3340", func(c *script) {
			c.next() // NotePreferred
			for _, b := range [][]byte{
				derp.AppendFrame(nil, derp.FrameRecvPacket, make([]byte, 31)), // dropped
				derp.AppendFrame(nil, derp.FramePeerGone, make([]byte, 31)),
				derp.AppendFrame(nil, derp.FrameRestarting, make([]byte, 7)),
				derp.AppendFrame(nil, derp.FramePing, make([]byte, 7)),
				derp.AppendFrame(nil, derp.FramePong, make([]byte, 7)),
				derp.AppendFrame(nil, 0x66, []byte("unknown")),
				derp.AppendFrame(nil, 0x66, make([]byte, derp.MaxFrame)),
				derp.AppendFrame(nil, derp.FrameKeepAlive, nil),
				derp.AppendFrame(nil, derp.FramePeerPresent, make([]byte, 32)),
				derp.AppendServerKey(nil, src),
				derp.AppendFrame(nil, derp.FrameHealth, []byte("duplicate connection")),
				derp.AppendPing(nil, derp.FramePong, [8]byte{}), // not asked for
				derp.AppendRecvPacket(nil, src, []byte("packet")),
				derp.AppendPing(nil, derp.FramePing, [8]byte([]byte("question"))),
			} {
				c.Write(b)
			}
			b, _ := c.next()
			pong <- string(b)
			<-seen
			c.Write(derp.AppendPeerGone(nil, src, derp.GoneNotHere))
			c.Write(derp.AppendFrame(nil, derp.FrameHealth, nil))
			<-c.ctx.Done()
		})
		defer stopRelay()
		n, _, stop := p.start(t, 1, plainMap(plainRegion(1, "one")))
		defer stop()
		n.await("told of a problem", func(s derp.Status) bool {
			r, _ := s.Region(1)
			return r.Problem == "duplicate connection"
		})
		n.expect(1, src, "packet")
		if got := <-pong; got != "question" {
			t.Errorf("pong %q", got)
		}
		close(seen)
		n.await("healthy", func(s derp.Status) bool {
			r, _ := s.Region(1)
			return r.Problem == "" && r.Connected
		})
		synctest.Wait()
		if r := n.Heard(src); r != 0 {
			t.Errorf("a peer that is gone is still heard in region %d", r) // DERP-143
		}
		c := n.Counters()
		if c.ShortFrames != 5 || c.UnknownFrames != 1 || c.GoneNotHere != 1 || c.ReceivedPackets != 1 {
			t.Errorf("counters %+v", c)
		}
	})
}

// TestTooLongFrame: DERP-08: above 1 MiB the connection ends.
func TestTooLongFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		stopRelay := p.serveScript("one:3340", func(c *script) {
			c.Write(derp.AppendHeader(nil, 0x66, derp.MaxFrame+1))
			<-c.ctx.Done()
		})
		defer stopRelay()
		n, _, stop := p.start(t, 1, plainMap(plainRegion(1, "one")))
		defer stop()
		n.await("given up", func(s derp.Status) bool {
			r, _ := s.Region(1)
			return r.Err != nil
		})
	})
}

// TestBadServerInfo: a ServerInfo of another key ends the connection.
func TestBadServerInfo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		stopRelay := p.serveScript("one:3340", func(c *script) {
			c.Write(derp.AppendFrame(nil, derp.FrameServerInfo, make([]byte, 60)))
			<-c.ctx.Done()
		})
		defer stopRelay()
		n, _, stop := p.start(t, 1, plainMap(plainRegion(1, "one")))
		defer stop()
		n.await("given up", func(s derp.Status) bool {
			r, _ := s.Region(1)
			return r.Err != nil
		})
	})
}

// TestRestarting: DERP-17: the client stays away as long as it was asked to.
func TestRestarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		stopRelay := p.serveScript("one:3340", func(c *script) {
			time.Sleep(time.Second) // connected for a while, so that it is seen
			c.Write(derp.AppendRestarting(nil, derp.Restarting{ReconnectIn: 3 * time.Second, TryFor: time.Second}))
		})
		defer stopRelay()
		n, _, stop := p.start(t, 1, plainMap(plainRegion(1, "one")))
		defer stop()
		n.await("away", func(s derp.Status) bool {
			r, _ := s.Region(1)
			return r.Err != nil
		})
		start := time.Now()
		n.awaitHome()
		if d := time.Since(start); d != 3*time.Second {
			t.Errorf("back after %v, want 3 s", d)
		}
	})
}

// TestNetworkChangedStale: DERP-147: a connection whose ping is not answered in
// 3 s is made anew, and so is one whose address is gone.
func TestNetworkChangedStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		stopRelay := p.serveScript("one:3340", func(c *script) {
			for {
				if _, err := c.next(); err != nil {
					return
				}
			}
		})
		defer stopRelay()
		n, _, stop := p.start(t, 1, plainMap(plainRegion(1, "one")))
		defer stop()
		n.awaitHome()
		start := time.Now()
		n.NetworkChanged()
		n.await("given up", func(s derp.Status) bool { return !s.HomeConnected })
		if d := time.Since(start); d != 3*time.Second {
			t.Errorf("given up after %v, want 3 s", d)
		}
		n.awaitHome()
	})
}

// TestQueueFull: DERP-144: while a relay takes nothing the newest 256 KiB are
// kept, the rest is counted, and Send never waits. Disco has a queue of its own
// and goes first.
func TestQueueFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		release := make(chan struct{})
		var disco, newest, total int
		stopRelay := p.serveScript("one:3340", func(c *script) {
			c.next() // NotePreferred
			<-release
			for {
				b, err := c.next()
				if err != nil {
					return
				}
				_, data, err := derp.ParsePacket(derp.FrameSendPacket, b)
				if err != nil {
					panic(err)
				}
				total++
				if derp.IsDisco(data) && disco == 0 {
					disco = total
				}
				newest = int(data[len(data)-2])<<8 | int(data[len(data)-1])
			}
		})
		defer stopRelay()
		n, _, stop := p.start(t, 1, plainMap(plainRegion(1, "one")))
		defer stop()
		n.awaitHome()
		synctest.Wait()
		const count = 1000
		data := make([]byte, 1312)
		send := func(b []byte) {
			if err := n.Send(transport.Endpoint{Region: 1, Key: n.key}, []packet.Burst{{Buf: b, Size: len(b), Count: 1}}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range count {
			data[1310], data[1311] = byte(i>>8), byte(i)
			send(data)
			synctest.Wait()
		}
		send(append([]byte("TS\U0001f4ac"), make([]byte, 100)...))
		data[1310], data[1311] = byte(count>>8), byte(count&0xff)
		send(data)
		held := (256 << 10) / (1312 + derp.SendHeaderSize)
		if c := n.Counters(); c.DroppedPackets != uint64(count+1-held-1) || c.DroppedBytes != 1312*c.DroppedPackets {
			t.Errorf("dropped %d packets of %d bytes, want %d", c.DroppedPackets, c.DroppedBytes, count+1-held-1)
		}
		close(release)
		time.Sleep(time.Second)
		synctest.Wait()
		if total != 1+1+held || disco != 2 || newest != count {
			t.Errorf("%d arrived, disco was number %d, the newest %d; want %d, 2, %d", total, disco, newest, 2+held, count)
		}
	})
}

// TestSendLimit: DERP-30: a client keeps to the rate its relay has set.
func TestSendLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		got := make(chan int, 64)
		limit := derp.ServerInfo{Version: 2, TokenBucketBytesPerSecond: 10_000, TokenBucketBytesBurst: 2_000}
		stopRelay := p.serveScriptWith("one:3340", limit, func(c *script) {
			for {
				b, err := c.next()
				if err != nil {
					return
				}
				got <- len(b)
			}
		})
		defer stopRelay()
		n, _, stop := p.start(t, 1, plainMap(plainRegion(1, "one")))
		defer stop()
		n.awaitHome()
		<-got // NotePreferred
		start := time.Now()
		for range 21 {
			n.send(1, n.key, string(make([]byte, 1000-derp.SendHeaderSize)))
			<-got
		}
		if d := time.Since(start); d < 1800*time.Millisecond || d > 2*time.Second {
			t.Errorf("21 kB at 10 kB/s with a burst of 2 kB took %v, want 1.9 s", d)
		}
	})
}

// TestStuckWrite: a relay that reads nothing for 30 s is given up.
func TestStuckWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		stopRelay := p.serveScript("one:3340", func(c *script) {
			c.next() // NotePreferred
			for range 10 {
				c.Write(derp.AppendFrame(nil, derp.FrameKeepAlive, nil))
				time.Sleep(5 * time.Second)
			}
		})
		defer stopRelay()
		n, _, stop := p.start(t, 1, plainMap(plainRegion(1, "one")))
		defer stop()
		n.awaitHome()
		synctest.Wait()
		start := time.Now()
		n.send(1, n.key, "into the void")
		n.await("given up", func(s derp.Status) bool { return !s.HomeConnected })
		if d := time.Since(start); d < 30*time.Second || d > 36*time.Second {
			t.Errorf("given up after %v, want 30 to 35 s", d)
		}
	})
}

var _ host.Network = (*pipes)(nil)
