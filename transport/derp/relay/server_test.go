package relay

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

// disco returns a packet that looks like a disco message.
func disco(text string) string {
	return "TS\U0001f4ac" + strings.Repeat("k", key.Size) + strings.Repeat("n", 24) + text
}

// TestPackets: DERP-48, DERP-167: packets of all sizes over TLS with fast start
// and over plain HTTP.
func TestPackets(t *testing.T) {
	for name, withTLS := range map[string]bool{"TLS": true, "plain": false} {
		t.Run(name, func(t *testing.T) {
			st := run(t, withTLS)
			a, b := st.join(t, key.NewNode()), st.join(t, key.NewNode())
			if got := a.ServerKey(); got != st.PublicKey() {
				t.Errorf("server key %v, want %v", got, st.PublicKey())
			}
			for _, n := range []int{0, 1, 1400, 2011, 2012, 30000, 65536} {
				a.send(b.key, strings.Repeat("x", n))
				b.expectPacket(a.key, strings.Repeat("x", n))
			}
			b.send(a.key, "back")
			a.expectPacket(b.key, "back")
			a.send(a.key, "self")
			a.expectPacket(a.key, "self")
			st.stats(t, func(s Stats) bool {
				return s.Received.Total() == 9 && s.Sent.Total() == 9 && s.Sent.Bytes() == s.Received.Bytes() && s.Connections == 2
			})
		})
	}
}

// TestFrames: what each frame of a client does beside packets (DERP section 5).
func TestFrames(t *testing.T) {
	st := run(t, false)
	a := st.join(t, key.NewNode())
	a.write(derp.AppendNotePreferred(nil, true))
	a.write(derp.AppendNotePreferred(nil, true))
	a.write(derp.AppendFrame(nil, 0x77, []byte("from the future")))
	a.write(derp.AppendFrame(nil, 0x78, make([]byte, derp.MaxFrame))) // DERP-09
	a.write(derp.AppendPing(nil, derp.FramePong, [8]byte{}))
	a.write(derp.AppendFrame(nil, derp.FramePing, []byte("8 bytes and more"))) // DERP-08
	if got := string(a.expect(derp.FramePong)); got != "8 bytes " {
		t.Errorf("pong %q", got)
	}
	st.stats(t, func(s Stats) bool { return s.Homes == 1 && s.UnknownFrames == 2 && s.Pings == 1 && s.Pongs == 1 })
	a.write(derp.AppendNotePreferred(nil, false))
	a.sync()
	if n := st.Stats().Homes; n != 0 {
		t.Errorf("%d homes, want 0", n)
	}
}

// handshake plays the client's half of a login by hand.
func handshake(t *testing.T, s *Server, first func(server key.NodePublic) []byte) ([]byte, error) {
	t.Helper()
	here, there := net.Pipe()
	accepted := make(chan error, 1)
	go func() { accepted <- s.Accept(context.Background(), Incoming{Conn: there}) }()
	hello := make([]byte, derp.HeaderSize+8+key.Size)
	if _, err := io.ReadFull(here, hello); err != nil {
		t.Fatal(err)
	}
	server, err := derp.ParseServerKey(hello[derp.HeaderSize:])
	if err != nil || server != s.PublicKey() {
		t.Fatalf("ServerKey %v, %v", server, err)
	}
	go func() { here.Write(first(server)) }()
	here.SetReadDeadline(time.Now().Add(patience))
	rest, _ := io.ReadAll(here)
	here.Close()
	return rest, <-accepted
}

// TestBadLogin: a login that breaks a rule gets no answer (DERP-05, DERP-20,
// DERP-22).
func TestBadLogin(t *testing.T) {
	k := key.NewNode()
	info := func(i derp.ClientInfo) func(key.NodePublic) []byte {
		return func(server key.NodePublic) []byte {
			b, err := derp.AppendClientInfo(nil, k, server, i)
			if err != nil {
				t.Error(err)
			}
			return b
		}
	}
	sealed := func(msg string) func(key.NodePublic) []byte {
		return func(server key.NodePublic) []byte {
			public := k.Public().Raw()
			return derp.AppendFrame(nil, derp.FrameClientInfo, append(public[:], k.SealTo(server, []byte(msg))...))
		}
	}
	frame := func(t derp.FrameType, b []byte) func(key.NodePublic) []byte {
		return func(key.NodePublic) []byte { return derp.AppendFrame(nil, t, b) }
	}
	for name, tt := range map[string]struct {
		first func(key.NodePublic) []byte
		err   string
	}{
		"other frame": {frame(derp.FrameSendPacket, make([]byte, 40)), "first frame is SendPacket"},
		"too long":    {func(key.NodePublic) []byte { return derp.AppendHeader(nil, derp.FrameClientInfo, maxClientInfo+1) }, "262145 bytes"},
		"too short":   {frame(derp.FrameClientInfo, make([]byte, 55)), "want 56"},
		"zero key":    {frame(derp.FrameClientInfo, make([]byte, 80)), "zero key"},
		"not sealed":  {frame(derp.FrameClientInfo, bytes.Repeat([]byte{7}, 100)), "not sealed to this relay"},
		"other relay": {func(key.NodePublic) []byte { return info(derp.ClientInfo{})(key.NewNode().Public()) }, "not sealed to this relay"},
		"mesh key":    {sealed(`{"meshKey":"abc"}`), "a mesh key is 64 hex digits"},
		"mesh key 64": {sealed(`{"meshKey":"` + strings.Repeat("x", 64) + `"}`), "a mesh key is 64 hex digits"},
	} {
		t.Run(name, func(t *testing.T) {
			s := New(key.NewNode(), Options{})
			rest, err := handshake(t, s, tt.first)
			if len(rest) != 0 {
				t.Errorf("the relay answered %x", rest)
			}
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("Accept returned %v, want %q", err, tt.err)
			}
			if n := s.Stats().Keys; n != 0 {
				t.Errorf("%d keys registered", n)
			}
		})
	}
}

// TestLoginTimeout: DERP-22, 10 s for the client's half.
func TestLoginTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(key.NewNode(), Options{})
		here, there := net.Pipe()
		accepted := make(chan error, 1)
		start := time.Now()
		go func() { accepted <- s.Accept(t.Context(), Incoming{Conn: there}) }()
		go io.Copy(io.Discard, here)
		if err := <-accepted; err == nil || time.Since(start) != loginTimeout {
			t.Errorf("Accept returned %v after %v", err, time.Since(start))
		}
		here.Close()
	})
}

// pipe logs an ordinary client in over an in-memory connection, inside a bubble.
func pipe(t *testing.T, s *Server, k key.NodePrivate) *peer {
	t.Helper()
	return pipeAs(t, s, k, derp.ClientInfo{}, Incoming{})
}

// TestKeepAlive: DERP-58, one each 60 to 65 s, traffic or not.
func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(key.NewNode(), Options{})
		defer s.Close()
		a := pipe(t, s, key.NewNode())
		last := time.Now()
		for range 3 {
			a.expect(derp.FrameKeepAlive)
			if d := time.Since(last); d < derp.KeepAlivePeriod || d > derp.KeepAlivePeriod+keepAliveJitter {
				t.Errorf("keep-alive after %v", d)
			}
			last = time.Now()
		}
	})
}

// TestSlowReceiver: DERP-63, DERP-169: who does not read is disconnected after
// the write timeout, loses the oldest packets, and holds nobody up.
func TestSlowReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(key.NewNode(), Options{})
		defer s.Close()
		alice, bob, cathy := pipe(t, s, key.NewNode()), pipe(t, s, key.NewNode()), pipe(t, s, key.NewNode())
		const n = 100
		for range n {
			alice.send(cathy.key, "to one who sleeps") // one is being written, 32 wait
			synctest.Wait()
			alice.send(bob.key, "to one who reads")
			bob.expectPacket(alice.key, "to one who reads")
		}
		synctest.Wait()
		if d := s.Stats().Dropped[DropQueueHead]; d.Other != n-1-DefaultQueueDepth || d.Disco != 0 {
			t.Errorf("dropped %+v, want %d", d, n-1-DefaultQueueDepth)
		}
		time.Sleep(DefaultWriteTimeout)
		synctest.Wait()
		stats := s.Stats()
		if stats.WriteTimeouts() != 1 || stats.Connections != 2 || stats.Dropped[DropWrite].Total() != 1 || stats.Dropped[DropGone].Total() != DefaultQueueDepth {
			t.Errorf("stats %+v", stats)
		}
		alice.send(bob.key, "still here")
		bob.expectPacket(alice.key, "still here")
	})
}

// TestQueuesByKind: DERP-52: bulk does not push out disco; the newest survive,
// disco goes first.
func TestQueuesByKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(key.NewNode(), Options{QueueDepth: 2, WriteTimeout: -1})
		defer s.Close()
		a, b := pipe(t, s, key.NewNode()), pipe(t, s, key.NewNode())
		a.send(b.key, "being written")
		synctest.Wait()
		for _, m := range []string{disco("1"), "1", "2", "3", "4", disco("2"), disco("3")} {
			a.send(b.key, m)
		}
		synctest.Wait()
		b.expectPacket(a.key, "being written")
		for _, want := range []string{disco("2"), disco("3"), "3", "4"} {
			b.expectPacket(a.key, want)
		}
		synctest.Wait()
		if d := s.Stats().Dropped[DropQueueHead]; d.Other != 2 || d.Disco != 1 {
			t.Errorf("dropped %+v, want 2 others and 1 disco", d)
		}
	})
}

// TestCoalescing: DERP-56: what waits for a client goes out in one write.
func TestCoalescing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(key.NewNode(), Options{WriteTimeout: -1})
		defer s.Close()
		a, b := pipe(t, s, key.NewNode()), pipe(t, s, key.NewNode())
		synctest.Wait()
		before := s.Stats().WriteFrames.Count
		for range 1 + DefaultQueueDepth {
			a.send(b.key, strings.Repeat("x", 1312))
			synctest.Wait() // the first is being written, alone
		}
		for range 1 + DefaultQueueDepth {
			b.expectPacket(a.key, strings.Repeat("x", 1312))
		}
		synctest.Wait()
		perWrite := writeSize / (derp.SendHeaderSize + 1312)
		want := uint64(1 + (DefaultQueueDepth+perWrite-1)/perWrite)
		if n := s.Stats().WriteFrames.Count - before; n != want {
			t.Errorf("%d writes, want %d", n, want)
		}
	})
}

// TestPeerGone: DERP-69..71: the departure of a source is told each time, an
// unknown destination for disco only and not too often.
func TestPeerGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(key.NewNode(), Options{})
		defer s.Close()
		a, k := pipe(t, s, key.NewNode()), key.NewNode()
		for range 2 {
			b := pipe(t, s, k)
			b.send(a.key, "hello")
			a.expectPacket(b.key, "hello")
			b.Close()
			a.expectGone(b.key, derp.GoneDisconnected)
		}
		a.send(k.Public(), "plain packets to nobody are dropped silently")
		for range 5 {
			a.send(k.Public(), disco(""))
			synctest.Wait()
		}
		if !a.tellsGone(k.Public()) {
			t.Error("not told that a disco packet had nowhere to go")
		}
		if st := s.Stats(); st.Dropped[DropUnknown].Other != 1 || st.Dropped[DropUnknown].Disco != 5 || st.GoneDisconnected != 2 {
			t.Errorf("stats %+v", st)
		}
	})
}

// TestNotHereLimit: three notices at once, then one a second.
func TestNotHereLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(key.NewNode(), Options{})
		defer s.Close()
		a, nobody, told := pipe(t, s, key.NewNode()), key.NewNode().Public(), 0
		for range 10 {
			a.send(nobody, disco(""))
			if a.tellsGone(nobody) {
				told++
			}
		}
		if told != notHereBurst {
			t.Errorf("%d notices, want %d", told, notHereBurst)
		}
		time.Sleep(time.Second)
		a.send(nobody, disco(""))
		a.expectGone(nobody, derp.GoneNotHere)
	})
}

// tellsGone reads up to the answer of a ping and reports whether a notice for
// who came before it.
func (p *peer) tellsGone(who key.NodePublic) bool {
	p.tb.Helper()
	p.write(derp.AppendPing(nil, derp.FramePing, [8]byte{}))
	told := false
	for {
		t, b, err := p.ReadFrame()
		switch {
		case err != nil:
			p.tb.Fatal(err)
		case t == derp.FramePong:
			return told
		case t == derp.FramePeerGone:
			got, _, err := derp.ParsePeerGone(b)
			told = told || err == nil && got == who
		}
	}
}

// TestDuplicate: DERP-43, DERP-46: the newest connection of a key gets the
// packets, older ones may still send, and take over when it leaves.
func TestDuplicate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(key.NewNode(), Options{})
		defer s.Close()
		a, k := pipe(t, s, key.NewNode()), key.NewNode()
		old := pipe(t, s, k)
		a.send(old.key, "1")
		old.expectPacket(a.key, "1")
		young := pipe(t, s, k)
		a.send(old.key, "2")
		young.expectPacket(a.key, "2")
		old.send(a.key, "from the old one")
		a.expectPacket(old.key, "from the old one")
		if st := s.Stats(); st.Keys != 2 || st.Connections != 3 {
			t.Errorf("%d keys, %d connections; want 2 and 3", st.Keys, st.Connections)
		}
		young.Close()
		synctest.Wait()
		a.send(old.key, "3")
		old.expectPacket(a.key, "3")
		old.Close()
		a.expectGone(old.key, derp.GoneDisconnected)
	})
}

// TestShutdown: DERP-17: clients are told before the connection ends.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(key.NewNode(), Options{})
		a := pipe(t, s, key.NewNode())
		closed := make(chan error, 1)
		go func() { closed <- s.Shutdown(t.Context(), 3*time.Second, 5*time.Second) }()
		r, err := derp.ParseRestarting(a.expect(derp.FrameRestarting))
		if err != nil || r.ReconnectIn < 0 || r.ReconnectIn >= 3*time.Second || r.TryFor != 5*time.Second {
			t.Errorf("told %+v, %v", r, err)
		}
		a.expectHangUp()
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if err := s.Accept(t.Context(), Incoming{Conn: a.pipeEnd()}); !errors.Is(err, ErrClosed) {
			t.Errorf("Accept on a closed server: %v", err)
		}
	})
}

// pipeEnd returns a connection that nobody holds the other end of.
func (*peer) pipeEnd() net.Conn {
	_, there := net.Pipe()
	return there
}

// TestShutdownOfStuckClients: who does not read delays Shutdown until the
// write timeout at most.
func TestShutdownOfStuckClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(key.NewNode(), Options{})
		pipe(t, s, key.NewNode())
		start := time.Now()
		if err := s.Shutdown(t.Context(), 0, 0); err != nil || time.Since(start) > DefaultWriteTimeout {
			t.Errorf("Shutdown returned %v after %v", err, time.Since(start))
		}
	})
}

// FuzzClient: no bytes of a logged-in client make the relay panic or keep it
// from serving others.
func FuzzClient(f *testing.F) {
	to := key.NodePrivateFromRaw([32]byte{1: 2, 31: 64}).Public()
	f.Add(derp.AppendSendPacket(nil, to, []byte("hi")))
	f.Add(derp.AppendNotePreferred(derp.AppendPing(nil, derp.FramePing, [8]byte{1}), true))
	f.Add(derp.AppendForwardPacket(nil, to, to, []byte("fwd")))
	f.Add(binary.BigEndian.AppendUint32([]byte{4}, 1<<31))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := New(key.NewNode(), Options{})
		defer s.Close()
		here, there := net.Pipe()
		ended := make(chan error, 1)
		go func() { ended <- s.Accept(context.Background(), Incoming{Conn: there}) }()
		c, err := derp.Login(context.Background(), derp.NewStream(here), key.NewNode(), derp.ClientInfo{})
		if err != nil {
			t.Fatal(err)
		}
		go io.Copy(io.Discard, here)
		c.Write(b)
		c.Close()
		if err := <-ended; err != nil && strings.Contains(err.Error(), "panic") {
			t.Error(err)
		}
	})
}
