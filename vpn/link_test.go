package vpn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/vpn/internal/wire"
)

// quiet is a logger of nothing.
var quiet = slog.New(slog.DiscardHandler)

// served runs a link until the test ends, with serve for what is no reply.
func served(t *testing.T, l *link, serve func(context.Context, message)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
			defer l.stream.Close()
			g.Go(l.read)
			g.Go(l.write)
			for {
				select {
				case m, ok := <-l.incoming:
					if !ok {
						return nil
					}
					serve(ctx, m)
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
}

// managerLink and tunnelLink are links of the sides.
func managerLink(s Stream) *link { return newLink(s, buffered(s), decodeTunnel, nil, quiet) }
func tunnelLink(s Stream) *link  { return newLink(s, buffered(s), decodeManager, nil, quiet) }

// settingsWith and startWith carry a number in one direction and back.
func settingsWith(rpc *wire.RPC, n int) message {
	return &wire.TunnelMessage{Rpc: rpc, Msg: &wire.TunnelMessage_NetworkSettings{NetworkSettings: &wire.NetworkSettingsRequest{Mtu: uint32(n)}}}
}

func startWith(rpc *wire.RPC, n int) message {
	return &wire.ManagerMessage{Rpc: rpc, Msg: &wire.ManagerMessage_Start{Start: &wire.StartRequest{TunnelFileDescriptor: int32(n)}}}
}

// VT-05: many calls both ways with the same ids; replies come shuffled and twice,
// and some are not waited for.
func TestCallsBothWays(t *testing.T) {
	const calls = 100
	a, b := streams()
	manager, tunnel := managerLink(a), tunnelLink(b)
	var answers sync.WaitGroup // sent by many at once: that is shuffled enough
	served(t, tunnel, func(ctx context.Context, m message) {
		n := m.(*wire.ManagerMessage).GetStart().GetTunnelFileDescriptor()
		r := &wire.TunnelMessage{Rpc: replyTo(m.GetRpc().GetMsgId()), Msg: &wire.TunnelMessage_Start{
			Start: &wire.StartResponse{ErrorMessage: fmt.Sprint(n)}}}
		for range 1 + rand.IntN(2) { // some come twice
			answers.Go(func() { tunnel.reply(r, r) })
		}
	})
	served(t, manager, func(ctx context.Context, m message) {
		n := m.(*wire.TunnelMessage).GetNetworkSettings().GetMtu()
		manager.reply(&wire.ManagerMessage{Rpc: replyTo(m.GetRpc().GetMsgId()), Msg: &wire.ManagerMessage_NetworkSettings{
			NetworkSettings: &wire.NetworkSettingsResponse{ErrorMessage: fmt.Sprint(n)}}}, nil)
	})
	var all sync.WaitGroup
	for n := range calls {
		all.Go(func() {
			ctx := t.Context()
			if n%10 == 0 {
				gone, cancel := context.WithCancel(ctx)
				cancel()
				ctx = gone
			}
			m, err := manager.call(ctx, "start", time.Minute, func(rpc *wire.RPC) message { return startWith(rpc, n) })
			if ctx.Err() != nil {
				return // its answer, if there is one, is nobody's
			}
			if err != nil || m.(*wire.TunnelMessage).GetStart().GetErrorMessage() != fmt.Sprint(n) {
				t.Errorf("call %d: %v, %v", n, m, err)
			}
		})
		all.Go(func() {
			m, err := tunnel.call(t.Context(), "settings", time.Minute, func(rpc *wire.RPC) message { return settingsWith(rpc, n) })
			if err != nil || m.(*wire.ManagerMessage).GetNetworkSettings().GetErrorMessage() != fmt.Sprint(n) {
				t.Errorf("call %d back: %v, %v", n, m, err)
			}
		})
	}
	all.Wait()
	answers.Wait()
	if n := len(manager.calls.waiting) + len(tunnel.calls.waiting); n != 0 {
		t.Errorf("%d calls are still remembered", n)
	}
}

// VT-06, VPN-14: a reply that is followed by the end at once is never lost.
func TestReplyThenClose(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			for range 250 {
				a, b := kind(t)
				m := managerLink(a)
				done := make(chan error, 1)
				go func() {
					if _, err := readFrame(buffered(b)); err != nil {
						done <- err
						return
					}
					frame, _ := encode(&wire.TunnelMessage{Rpc: replyTo(1), Msg: &wire.TunnelMessage_Stop{Stop: &wire.StopResponse{Success: true}}})
					_, err := b.Write(frame)
					b.Close()
					done <- err
				}()
				ctx, cancel := context.WithCancel(t.Context())
				g := actor.NewGroup(ctx)
				g.Go(m.read)
				g.Go(m.write)
				_, err := m.call(t.Context(), "stop", time.Minute, func(rpc *wire.RPC) message {
					return &wire.ManagerMessage{Rpc: rpc, Msg: &wire.ManagerMessage_Stop{Stop: new(wire.StopRequest)}}
				})
				if err != nil {
					t.Fatal(err)
				}
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				cancel()
				a.Close()
				g.Wait()
			}
		})
	}
}

// VPN-14, VPN-19: a call ends with the stream, and with its time.
func TestCallEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := streams()
		m := managerLink(a)
		served(t, m, func(context.Context, message) {})
		go io.Copy(io.Discard, b)
		start := time.Now()
		ask := func(rpc *wire.RPC) message { return startWith(rpc, 1) }
		if _, err := m.call(t.Context(), "start", 7*time.Second, ask); err == nil || time.Since(start) != 7*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		time.AfterFunc(time.Second, func() { b.Close() })
		if _, err := m.call(t.Context(), "start", 7*time.Second, ask); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("the stream has ended: %v", err)
		}
		if _, err := m.call(t.Context(), "start", 7*time.Second, ask); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("on a stream that has ended: %v", err)
		}
	})
}

// VT-08, VPN-10, VPN-34: under many senders every frame is whole, the last frame is
// the last, and then the stream ends.
func TestFinishIsLast(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			own, peer := kind(t)
			logs := newLogQueue()
			l := newLink(own, buffered(own), decodeManager, logs, quiet)
			ctx, cancel := context.WithCancel(context.Background())
			g := actor.NewGroup(ctx)
			g.Go(l.read)
			g.Go(l.write)
			for n := range 4 {
				g.Go(func(ctx context.Context) error { return flood(ctx, l, logs, n) })
			}
			last, err := encode(&wire.TunnelMessage{Rpc: replyTo(3), Msg: &wire.TunnelMessage_Stop{Stop: &wire.StopResponse{Success: true}}})
			if err != nil {
				t.Fatal(err)
			}
			in := buffered(peer)
			for range 50 {
				if _, err := readFrame(in); err != nil {
					t.Fatal(err)
				}
			}
			finished := make(chan struct{})
			go func() { l.finish(ctx, last); close(finished) }()
			var frame []byte
			for {
				b, err := readFrame(in)
				if err != nil {
					if !errors.Is(err, io.EOF) {
						t.Errorf("the stream ends inside of a frame: %v", err)
					}
					break
				}
				frame = b
			}
			if !bytes.Equal(frame, last[lengthSize:]) {
				t.Errorf("the last frame is %x", frame)
			}
			peer.Close()
			<-finished
			cancel()
			own.Close()
			g.Wait()
		})
	}
}

// flood sends logs and updates until nothing is written any more.
func flood(ctx context.Context, l *link, logs *logQueue, n int) error {
	for i := 0; ; i++ {
		logs.push(&wire.Log{Message: fmt.Sprint(n, i)})
		m := &wire.TunnelMessage{Msg: &wire.TunnelMessage_PeerUpdate{PeerUpdate: new(wire.PeerUpdate)}}
		if err := l.post(ctx, m); err != nil {
			return nil
		}
	}
}

// VPN-34: a peer that does not read holds the end up for 5 s, no more.
func TestFinishWithBlockedWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own, peer := streams()
		defer peer.Close()
		l := tunnelLink(own)
		ctx, cancel := context.WithCancel(t.Context())
		g := actor.NewGroup(ctx)
		g.Go(l.read)
		g.Go(l.write)
		g.Go(func(ctx context.Context) error { return flood(ctx, l, newLogQueue(), 0) })
		synctest.Wait() // the writer is stuck
		start := time.Now()
		l.finish(ctx, []byte("last"))
		if took := time.Since(start); took != drainTimeout {
			t.Errorf("finished after %v", took)
		}
		cancel()
		own.Close()
		g.Wait()
	})
}
