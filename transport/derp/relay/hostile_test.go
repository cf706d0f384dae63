package relay

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/nacl/box"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

// TestHostileFrames: each frame that breaks a rule ends its connection, with a
// reason that is counted; two bystanders go on.
func TestHostileFrames(t *testing.T) {
	header := func(t derp.FrameType, n int) []byte { return derp.AppendHeader(nil, t, n) }
	for name, tt := range map[string]struct {
		frame []byte
		why   CloseReason
	}{
		"SendPacket short":      {header(derp.FrameSendPacket, key.Size-1), ClosedMalformed},
		"SendPacket oversized":  {header(derp.FrameSendPacket, key.Size+derp.MaxPacketSize+1), ClosedOversized},
		"SendPacket of 4 GiB":   {header(derp.FrameSendPacket, 1<<32-1), ClosedOversized},
		"NotePreferred empty":   {header(derp.FrameNotePreferred, 0), ClosedMalformed},
		"NotePreferred long":    {header(derp.FrameNotePreferred, 2), ClosedOversized},
		"Ping short":            {header(derp.FramePing, derp.PingSize-1), ClosedMalformed},
		"Ping long":             {header(derp.FramePing, maxPing+1), ClosedOversized},
		"unknown above 1 MiB":   {header(0x77, derp.MaxFrame+1), ClosedOversized},
		"ForwardPacket no mesh": {header(derp.FrameForwardPacket, 100), ClosedNoMeshKey},
		"WatchConns no mesh":    {header(derp.FrameWatchConns, 0), ClosedNoMeshKey},
		"ClosePeer no mesh":     {header(derp.FrameClosePeer, key.Size), ClosedNoMeshKey},
	} {
		t.Run(name, func(t *testing.T) {
			playHostile(t, key.Mesh{}, tt.frame, tt.why)
		})
	}
	mesh := key.NewMesh()
	for name, tt := range map[string]struct {
		frame []byte
		why   CloseReason
	}{
		"ForwardPacket short":     {header(derp.FrameForwardPacket, 2*key.Size-1), ClosedMalformed},
		"ForwardPacket oversized": {header(derp.FrameForwardPacket, 2*key.Size+derp.MaxPacketSize+1), ClosedOversized},
		"WatchConns not empty":    {header(derp.FrameWatchConns, 1), ClosedOversized},
		"ClosePeer short":         {header(derp.FrameClosePeer, key.Size-1), ClosedMalformed},
		"ClosePeer long":          {header(derp.FrameClosePeer, key.Size+1), ClosedOversized},
	} {
		t.Run("mesh "+name, func(t *testing.T) {
			playHostile(t, mesh, tt.frame, tt.why)
		})
	}
}

func playHostile(t *testing.T, mesh key.Mesh, frame []byte, why CloseReason) {
	synctest.Test(t, func(t *testing.T) {
		s := New(key.NewNode(), Options{MeshKey: mesh})
		defer s.Close()
		bad := pipeAs(t, s, key.NewNode(), derp.ClientInfo{MeshKey: mesh}, Incoming{})
		a, b := pipe(t, s, key.NewNode()), pipe(t, s, key.NewNode())
		bad.write(frame)
		bad.expectHangUp()
		a.send(b.key, "bystanders")
		b.expectPacket(a.key, "bystanders")
		synctest.Wait()
		if st := s.Stats(); st.Connections != 2 || st.Closed[why] != 1 {
			t.Errorf("%d connections, closed %v, want 1 for %v", st.Connections, st.Closed, why)
		}
	})
}

// TestHangUpsAreCounted: the ends of well-behaved connections.
func TestHangUpsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(key.NewNode(), Options{})
		gone, stays := pipe(t, s, key.NewNode()), pipe(t, s, key.NewNode())
		half := pipe(t, s, key.NewNode())
		half.write(derp.AppendHeader(nil, derp.FrameSendPacket, 100))
		half.Close()
		gone.Close()
		synctest.Wait()
		s.Close()
		stays.expectHangUp()
		st := s.Stats()
		if st.Closed[ClosedByClient] != 1 || st.Closed[ClosedByServer] != 1 || st.Closed[ClosedTransport] != 1 {
			t.Errorf("closed %v", st.Closed)
		}
	})
}

// TestLowOrderKeys: DERP-05, RFC 7748 section 6.1: a key with which everybody
// agrees on the same secret shows nothing; such a login is rejected even if its
// box opens.
func TestLowOrderKeys(t *testing.T) {
	for _, low := range [][key.Size]byte{
		{0: 1},
		{0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
			0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00},
	} {
		s := New(key.NewNode(), Options{})
		first := func(key.NodePublic) []byte {
			var shared [key.Size]byte
			own := s.PrivateKey().Raw() // stands for any key: the secret is the same for all
			box.Precompute(&shared, &low, &own)
			var nonce [24]byte
			sealed := box.SealAfterPrecomputation(nonce[:], []byte(`{"version":2}`), &nonce, &shared)
			return derp.AppendFrame(nil, derp.FrameClientInfo, append(low[:], sealed...))
		}
		rest, err := handshake(t, s, first)
		if len(rest) != 0 || err == nil || !strings.Contains(err.Error(), "low-order") {
			t.Errorf("key %x: answered %x, %v", low, rest, err)
		}
		if n := s.Stats().Closed[ClosedBadLogin]; n != 1 {
			t.Errorf("%d bad logins, want 1", n)
		}
	}
}

// silent opens connections that say nothing.
func silent(t *testing.T, s *Server, n int) (ends chan error) {
	ends = make(chan error, n)
	for range n {
		here, there := net.Pipe()
		go func() { ends <- s.Accept(t.Context(), Incoming{Conn: there}) }()
		go io.Copy(io.Discard, here)
	}
	return ends
}

// TestLoginFlood: with as many logins in progress as may be, another one is
// refused at once; clients that are logged in go on, and when the silent ones
// have had their 10 s there is room again.
func TestLoginFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 100
		s := New(key.NewNode(), Options{MaxLogins: most})
		defer s.Close()
		a, b := pipe(t, s, key.NewNode()), pipe(t, s, key.NewNode())
		start, ends := time.Now(), silent(t, s, most)
		synctest.Wait()
		if err := <-silent(t, s, 1); closeReason(err) != ClosedLoginFlood || time.Since(start) != 0 {
			t.Errorf("one login more: %v after %v", err, time.Since(start))
		}
		a.send(b.key, "bystanders")
		b.expectPacket(a.key, "bystanders")
		for range most {
			if err := <-ends; closeReason(err) != ClosedLoginTime || time.Since(start) != loginTimeout {
				t.Errorf("silent login: %v after %v", err, time.Since(start))
			}
		}
		pipe(t, s, key.NewNode())
		if st := s.Stats(); st.Closed[ClosedLoginFlood] != 1 || st.Closed[ClosedLoginTime] != most || st.Connections != 3 {
			t.Errorf("%d connections, closed %v", st.Connections, st.Closed)
		}
	})
}

// TestSlowLoris: a login that trickles in is cut off after 10 s, however many
// bytes have come.
func TestSlowLoris(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(key.NewNode(), Options{})
		defer s.Close()
		here, there := net.Pipe()
		ended := make(chan error, 1)
		start := time.Now()
		go func() { ended <- s.Accept(t.Context(), Incoming{Conn: there}) }()
		go io.Copy(io.Discard, here)
		var dripped sync.WaitGroup
		defer dripped.Wait()
		dripped.Go(func() {
			drip := derp.AppendFrame(nil, derp.FrameClientInfo, make([]byte, 1000))
			for i := range drip {
				if _, err := here.Write(drip[i : i+1]); err != nil {
					return
				}
				time.Sleep(time.Second) // fake time
			}
		})
		if err := <-ended; closeReason(err) != ClosedLoginTime || time.Since(start) != loginTimeout {
			t.Errorf("ended with %v after %v", err, time.Since(start))
		}
	})
}

// TestLoginMemory: DERP-08: logins that claim to be large share a bounded
// amount of memory.
func TestLoginMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(key.NewNode(), Options{})
		defer s.Close()
		const fit = maxLoginBytes / maxClientInfo
		ends := make(chan error, fit+1)
		claim := derp.AppendHeader(nil, derp.FrameClientInfo, maxClientInfo)
		for range fit + 1 {
			here, there := net.Pipe()
			go func() { ends <- s.Accept(t.Context(), Incoming{Conn: there, Pending: bytes.Clone(claim)}) }()
			go io.Copy(io.Discard, here)
		}
		synctest.Wait()
		if err := <-ends; closeReason(err) != ClosedLoginFlood {
			t.Errorf("the login too many ended with %v", err)
		}
		for range fit {
			if err := <-ends; closeReason(err) != ClosedLoginTime {
				t.Errorf("a login that fits ended with %v", err)
			}
		}
		if n := s.loginBytes.Load(); n != 0 {
			t.Errorf("%d bytes still claimed", n)
		}
	})
}

// TestVerify: DERP-73..75, section 8.9: who is not admitted sees a close and no
// ServerInfo; mesh peers are not asked; a check that hangs ends.
func TestVerify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good, mesh := key.NewNode(), key.NewMesh()
		var asked []Candidate
		s := New(key.NewNode(), Options{MeshKey: mesh, Verify: func(ctx context.Context, c Candidate) error {
			asked = append(asked, c)
			switch {
			case c.AppName == "hang":
				<-ctx.Done()
				return ctx.Err()
			case c.Key != good.Public():
				return errors.New("nobody knows it")
			}
			return nil
		}})
		defer s.Close()
		pipeAs(t, s, good, derp.ClientInfo{IsProber: true, AppName: "probe"}, Incoming{})
		pipeAs(t, s, key.NewNode(), derp.ClientInfo{MeshKey: mesh}, Incoming{})
		if len(asked) != 1 || asked[0] != (Candidate{Key: good.Public(), Prober: true, AppName: "probe"}) {
			t.Errorf("asked for %+v", asked)
		}
		for _, app := range []string{"", "hang"} {
			info := func(server key.NodePublic) []byte {
				b, err := derp.AppendClientInfo(nil, key.NewNode(), server, derp.ClientInfo{AppName: app})
				if err != nil {
					t.Error(err)
				}
				return b
			}
			rest, err := handshake(t, s, info)
			if len(rest) != 0 || closeReason(err) != ClosedNotAdmitted {
				t.Errorf("app %q: answered %x, %v", app, rest, err)
			}
		}
		if st := s.Stats(); st.Connections != 2 || st.Closed[ClosedNotAdmitted] != 2 {
			t.Errorf("%d connections, closed %v", st.Connections, st.Closed)
		}
	})
}

// TestCloseEndsVerify: Close does not wait for a check.
func TestCloseEndsVerify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := make(chan struct{})
		s := New(key.NewNode(), Options{Verify: func(ctx context.Context, _ Candidate) error {
			close(asked)
			<-ctx.Done()
			return ctx.Err()
		}})
		here, there := net.Pipe()
		go s.Accept(t.Context(), Incoming{Conn: there})
		if _, err := derp.Login(t.Context(), derp.NewStream(here), key.NewNode(), derp.ClientInfo{}); err != nil {
			t.Fatal(err)
		}
		<-asked
		start := time.Now()
		if s.Close(); time.Since(start) != 0 {
			t.Errorf("Close took %v", time.Since(start))
		}
		here.Close()
	})
}

// FuzzLogin: no bytes in place of a login make the relay panic or let anyone
// in who does not hold a key.
func FuzzLogin(f *testing.F) {
	server, client := key.NodePrivateFromRaw([32]byte{1: 1, 31: 64}), key.NodePrivateFromRaw([32]byte{1: 2, 31: 64})
	good, err := derp.AppendClientInfo(nil, client, server.Public(), derp.ClientInfo{Version: 2, AppName: "x"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(derp.AppendHeader(nil, derp.FrameClientInfo, maxClientInfo))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := New(server, Options{})
		defer s.Close()
		c, err := s.admit(Incoming{Conn: newDeadEnd(nil), Pending: b})
		if err != nil && closeReason(err) == ClosedPanic {
			t.Error(err)
		}
		if c != nil {
			if c.key != client.Public() {
				t.Errorf("admitted %v", c.key)
			}
			s.run(c)
		}
	})
}

// A deadEnd is a connection that says what it was given and then ends; it takes
// all that is written.
type deadEnd struct {
	net.Conn // nil
	io.Reader
}

func newDeadEnd(b []byte) *deadEnd { return &deadEnd{Reader: bytes.NewReader(b)} }

func (d *deadEnd) Read(b []byte) (int, error)     { return d.Reader.Read(b) }
func (*deadEnd) Write(b []byte) (int, error)      { return len(b), nil }
func (*deadEnd) Close() error                     { return nil }
func (*deadEnd) SetDeadline(time.Time) error      { return nil }
func (*deadEnd) SetWriteDeadline(time.Time) error { return nil }

// A hijackable is a response whose connection can be taken.
type hijackable struct {
	*httptest.ResponseRecorder
	conn net.Conn
}

func (h hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(bufio.NewReader(h.conn), bufio.NewWriter(h.conn)), nil
}

// FuzzUpgrade: no HTTP request makes the relay panic; what is not an upgrade is
// answered and not taken over.
func FuzzUpgrade(f *testing.F) {
	f.Add([]byte("GET /derp HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\n"))
	f.Add([]byte("GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nIdeal-Node: 1b\r\n\r\n"))
	f.Add([]byte("GET /derp HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: derp\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"))
	f.Add([]byte("GET /generate_204 HTTP/1.1\r\nHost: x\r\nX-Tailscale-Challenge: a\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return
		}
		s := New(key.NewNode(), Options{})
		defer s.Close()
		w := hijackable{httptest.NewRecorder(), newDeadEnd([]byte("\x02\x00\x00\x00\x01"))}
		s.Handler().ServeHTTP(w, r)
		if st := s.Stats(); st.Connections != 0 || st.Closed[ClosedPanic] != 0 {
			t.Errorf("%d connections, closed %v", st.Connections, st.Closed)
		}
	})
}
