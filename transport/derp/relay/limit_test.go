package relay

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

// TestRateLimitApplied: DERP-64, DERP-65.
func TestRateLimitApplied(t *testing.T) {
	for _, tt := range []struct{ set, want RateLimit }{
		{RateLimit{}, RateLimit{}},
		{RateLimit{Burst: 1 << 20}, RateLimit{}},
		{RateLimit{BytesPerSecond: -1}, RateLimit{}},
		{RateLimit{BytesPerSecond: 1}, RateLimit{1, 65568}},
		{RateLimit{BytesPerSecond: 1, Burst: 65568}, RateLimit{1, 65568}},
		{RateLimit{BytesPerSecond: 1, Burst: 1 << 20}, RateLimit{1, 1 << 20}},
	} {
		s := New(key.NewNode(), Options{RateLimit: tt.set})
		if got := s.Stats().RateLimit; got != tt.want {
			t.Errorf("%+v is applied as %+v, want %+v", tt.set, got, tt.want)
		}
		s.Close()
	}
}

// flood has p send n packets of size bytes to itself, and returns when each is
// on its way.
func flood(p *peer, n, size int) {
	b := derp.AppendSendPacket(nil, key.NewNode().Public(), make([]byte, size))
	go func() {
		for range n {
			if p.Conn.Write(b) != nil {
				return
			}
		}
	}()
	synctest.Wait()
}

// TestRateLimit: DERP-66, DERP-173: a client above its limit is not read, and
// nothing of it is lost.
func TestRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 1000 - key.Size // 1000 bytes of payload
		s := New(key.NewNode(), Options{RateLimit: RateLimit{BytesPerSecond: 1000}})
		defer s.Close()
		a := pipe(t, s, key.NewNode())
		flood(a, 100, size)
		if n := s.Stats().Received.Total(); n != largestSend/1000 {
			t.Errorf("%d packets at once, want the burst of %d", n, largestSend/1000)
		}
		time.Sleep(10 * time.Second) // fake time
		synctest.Wait()
		if n := s.Stats().Received.Total(); n != largestSend/1000+10 {
			t.Errorf("%d packets after 10 s, want 10 more", n)
		}
		time.Sleep(time.Minute) // fake time
		synctest.Wait()
		st := s.Stats()
		if st.Received.Total() != 100 || st.RateLimitWaits != 100-largestSend/1000 {
			t.Errorf("%d packets in the end, %d waits", st.Received.Total(), st.RateLimitWaits)
		}
	})
}

// TestRateLimitReload: DERP-67: a new limit holds at once for who is waiting
// under the old one.
func TestRateLimitReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(key.NewNode(), Options{RateLimit: RateLimit{BytesPerSecond: 1}})
		defer s.Close()
		a := pipe(t, s, key.NewNode())
		flood(a, 100, 10_000)
		if n := s.Stats().Received.Total(); n != 6 {
			t.Errorf("%d packets, want 6", n)
		}
		s.SetRateLimit(RateLimit{BytesPerSecond: 2})
		synctest.Wait()
		if n := s.Stats().Received.Total(); n != 12 {
			t.Errorf("%d packets, want 6 of the old bucket and 6 of a new one", n)
		}
		s.SetRateLimit(RateLimit{})
		synctest.Wait()
		if n := s.Stats().Received.Total(); n != 100 {
			t.Errorf("%d packets without a limit, want 100", n)
		}
	})
}

// TestRateLimitMesh: DERP-64, DERP-86: mesh peers are exempt.
func TestRateLimitMesh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w := meshed(t)
		defer s.Close()
		s.SetRateLimit(RateLimit{BytesPerSecond: 1})
		flood(w, 100, 10_000)
		if n := s.Stats().Received.Total(); n != 100 {
			t.Errorf("%d packets, want 100", n)
		}
	})
}

// TestRateLimitCloses: the end of the server does not wait for the limit.
func TestRateLimitCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(key.NewNode(), Options{RateLimit: RateLimit{BytesPerSecond: 1}})
		a := pipe(t, s, key.NewNode())
		flood(a, 100, 10_000)
		start := time.Now()
		if s.Close(); time.Since(start) != 0 {
			t.Errorf("Close took %v", time.Since(start))
		}
	})
}

// TestRateLimitAdvertised: DERP-68.
func TestRateLimitAdvertised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(key.NewNode(), Options{RateLimit: RateLimit{BytesPerSecond: 1000, Burst: 100_000}, AdvertiseRateLimit: true})
		defer s.Close()
		c := s.newClient(Incoming{Conn: newDeadEnd(nil)})
		private := key.NewNode()
		c.key = private.Public()
		var sent []byte
		c.conn = tapped{newDeadEnd(nil), &sent}
		if err := c.sendServerInfo(); err != nil {
			t.Fatal(err)
		}
		info, err := derp.ParseServerInfo(private, s.PublicKey(), sent[derp.HeaderSize:])
		want := derp.ServerInfo{Version: 2, TokenBucketBytesPerSecond: 1000, TokenBucketBytesBurst: 100_000}
		if err != nil || info != want {
			t.Errorf("told %+v, %v; want %+v", info, err, want)
		}
	})
}

// A tapped connection keeps what is written.
type tapped struct {
	*deadEnd
	sent *[]byte
}

func (c tapped) Write(b []byte) (int, error) {
	*c.sent = append(*c.sent, b...)
	return len(b), nil
}
