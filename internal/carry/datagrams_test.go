package carry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
)

// SVC-57: a flow ends after as long without a datagram either way, and each
// datagram begins that time anew.
func TestPipeDatagramsIdles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer, in := net.Pipe()
		out, hostSide := net.Pipe()
		ended := make(chan time.Time, 1)
		go func() {
			PipeDatagrams(t.Context(), in, out, idleAfter, new(Traffic))
			ended <- time.Now()
		}()
		begin, buf := time.Now(), make([]byte, 100)
		for _, way := range [][2]net.Conn{{peer, hostSide}, {hostSide, peer}, {hostSide, peer}} {
			time.Sleep(idleAfter - time.Second) // fake time
			way[0].Write([]byte("x"))
			if n, err := way[1].Read(buf); n != 1 || err != nil {
				t.Fatal(n, err)
			}
		}
		if took, want := (<-ended).Sub(begin), 3*(idleAfter-time.Second)+idleAfter; took != want {
			t.Errorf("the flow ended after %v, want %v", took, want)
		}
	})
}

// A pickyConn sends no datagrams of nine bytes.
type pickyConn struct{ net.Conn }

func (c pickyConn) Write(b []byte) (int, error) {
	if len(b) == 9 {
		return 0, syscall.ECONNREFUSED
	}
	return c.Conn.Write(b)
}

// What passes is counted, and what cannot be sent on.
func TestPipeDatagramsCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer, in := net.Pipe()
		out, hostSide := net.Pipe()
		var traffic Traffic
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go PipeDatagrams(ctx, in, pickyConn{out}, idleAfter, &traffic)
		for _, size := range []int{5, 9, 6} {
			peer.Write(make([]byte, size))
			if size != 9 {
				hostSide.Read(make([]byte, 100))
			}
		}
		hostSide.Write(make([]byte, 7))
		peer.Read(make([]byte, 100))
		synctest.Wait()
		if in, out, dropped := traffic.In.Load(), traffic.Out.Load(), traffic.Dropped.Load(); in != 11 || out != 7 || dropped != 1 {
			t.Errorf("%d bytes in, %d out, %d datagrams dropped; want 11, 7, 1", in, out, dropped)
		}
	})
}

// Datagrams of all lengths pass whole, the first one too.
func TestPipeDatagramsCarriesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer, in := net.Pipe()
		out, hostSide := net.Pipe()
		done := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { defer close(done); PipeDatagrams(ctx, in, out, idleAfter, new(Traffic)) }()
		buf := make([]byte, LongestDatagram+1)
		for _, size := range []int{LongestDatagram, 1, 2049} {
			for _, way := range [][2]net.Conn{{peer, hostSide}, {hostSide, peer}} {
				go way[0].Write(make([]byte, size))
				if n, err := way[1].Read(buf); n != size || err != nil {
					t.Errorf("%d bytes of %d, %v", n, size, err)
				}
			}
		}
		cancel()
		<-done
	})
}

// SVC-57: port 53 has its own time.
func TestIdleAfter(t *testing.T) {
	if a, b := IdleAfter(53), IdleAfter(5353); a != 30*time.Second || b != 2*time.Minute {
		t.Errorf("%v and %v, want 30s and 2m", a, b)
	}
}

// A far is the other side of a flow of Datagrams.
type far struct{ net.Conn }

// datagramsTest makes Datagrams whose flows end in pipes, and a group for them.
func datagramsTest(t *testing.T, dial func(ctx context.Context, key string) error) (d *Datagrams[string], g *actor.Group, made chan far, replies chan string) {
	made, replies = make(chan far, 10), make(chan string, 200)
	d = &Datagrams[string]{
		Dial: func(ctx context.Context, key string) (net.Conn, time.Duration, error) {
			if dial != nil {
				if err := dial(ctx, key); err != nil {
					return nil, 0, err
				}
			}
			a, b := net.Pipe()
			made <- far{b}
			return a, time.Minute, nil
		},
		Reply:  func(key string, _ net.Conn, b []byte) { replies <- key + " " + string(b) },
		Failed: func(key string, err error) { replies <- key + " " + err.Error() },
		Limit:  NewLimit(4, 0, nil), Traffic: new(Traffic),
	}
	ctx, cancel := context.WithCancel(t.Context())
	g = actor.NewGroup(ctx)
	t.Cleanup(func() { cancel(); g.Wait() })
	return d, g, made, replies
}

func TestDatagramsMakeAConnectionForEachFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dialling := make(chan struct{})
		d, g, made, replies := datagramsTest(t, func(context.Context, string) error { <-dialling; return nil })
		d.Send(g, "a", flooder, []byte("1"))
		synctest.Wait()
		for range maxWaiting {
			d.Send(g, "a", flooder, []byte("2"))
		}
		if d.Traffic.Dropped.Load() != 1 {
			t.Errorf("%d datagrams dropped that came before the connection, want 1", d.Traffic.Dropped.Load())
		}
		close(dialling)
		a, buf := <-made, make([]byte, 10)
		for i := range maxWaiting {
			if n, err := a.Read(buf); err != nil || string(buf[:n]) != map[bool]string{true: "1", false: "2"}[i == 0] {
				t.Fatalf("datagram %d: %q, %v", i, buf[:n], err)
			}
		}
		synctest.Wait()
		a.Write([]byte("reply"))
		if got := <-replies; got != "a reply" {
			t.Errorf("got %q", got)
		}
		if d.Limit.Open() != 1 || d.Traffic.Flows.Load() != 1 {
			t.Errorf("%d flows open, %d in all; want 1, 1", d.Limit.Open(), d.Traffic.Flows.Load())
		}
		time.Sleep(time.Minute + time.Second) // fake time
		synctest.Wait()
		if d.Limit.Open() != 0 || len(d.flows) != 0 {
			t.Errorf("%d flows open after they were idle", d.Limit.Open())
		}
		if in, out := d.Traffic.In.Load(), d.Traffic.Out.Load(); in != maxWaiting || out != 5 {
			t.Errorf("counted %d in, %d out", in, out)
		}
	})
}

// One source that begins flows without end does not stop another.
func TestDatagramsOfAFloodLeaveRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, g, made, _ := datagramsTest(t, nil)
		for _, key := range []string{"a", "b", "c", "d"} {
			go d.Send(g, key, flooder, []byte("x"))
		}
		synctest.Wait()
		if len(made) != 2 || d.Traffic.Dropped.Load() != 2 {
			t.Errorf("the flood made %d connections, and %d datagrams were dropped; want 2, 2", len(made), d.Traffic.Dropped.Load())
		}
		go d.Send(g, "e", other, []byte("x"))
		synctest.Wait()
		if len(made) != 3 {
			t.Error("there was no room for the other source")
		}
	})
}

func TestDatagramsTellOfFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, g, _, replies := datagramsTest(t, func(context.Context, string) error { return errors.New("no way") })
		d.Send(g, "a", netip.Addr{}, []byte("x"))
		if got := <-replies; got != "a no way" {
			t.Errorf("got %q", got)
		}
		synctest.Wait()
		if d.Limit.Open() != 0 {
			t.Error("a flow that failed still counts")
		}
	})
}

// What waits for connections has a bound in bytes, of which no source takes all. It
// is dropped, and counted, with the flow.
func TestDatagramsThatWaitAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dialling := make(chan struct{})
		d, g, _, _ := datagramsTest(t, func(context.Context, string) error { <-dialling; return errors.New("no way") })
		d.Limit = NewLimit(1000, 0, nil)
		long, sent := make([]byte, LongestDatagram), 0
		for i := range 100 {
			d.Send(g, fmt.Sprint(i), flooder, long)
			sent++
		}
		if n := waitingRoom.Open(); n > maxWaitingBytes/2+LongestDatagram || n < maxWaitingBytes/4 {
			t.Errorf("%d bytes of the flood wait", n)
		}
		dropped := d.Traffic.Dropped.Load()
		if dropped < 60 {
			t.Errorf("%d datagrams of the flood were dropped", dropped)
		}
		d.Send(g, "other", other, long)
		if n := d.Traffic.Dropped.Load(); n != dropped {
			t.Error("there was no room for another source")
		}
		close(dialling)
		synctest.Wait()
		if n := d.Traffic.Dropped.Load(); n != uint64(sent)+1 {
			t.Errorf("%d datagrams of %d were dropped in the end", n, sent+1)
		}
		if waitingRoom.Open() != 0 || len(waitingRoom.by) != 0 {
			t.Errorf("%d bytes wait after all flows have ended", waitingRoom.Open())
		}
	})
}
