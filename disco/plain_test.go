package disco

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// TestPlainPeer: the prober measures a plain WireGuard peer and sends to its
// fastest endpoint; one that does not answer is no choice (PATH-52). A changed disco
// key of another peer resets its session (PATH-20).
func TestPlainPeer(t *testing.T) {
	slow, fast, dead := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:1"), netip.MustParseAddrPort("192.0.2.3:1")
	synctest.Test(t, func(t *testing.T) {
		plain := &netmap.Peer{ID: 1, Key: nodeKey("p"), WireGuardOnly: true, Endpoints: []netip.AddrPort{slow, fast, dead}}
		other := &netmap.Peer{ID: 2, Key: nodeKey("b"), HomeDERP: 1, Disco: discoKey(1)}
		maps := actor.NewCell(&netmap.Netmap{Peers: []*netmap.Peer{plain, other}})
		var path *Path
		var expired []key.NodePublic
		p := NewProber(Config{
			Disco: key.NewDisco(), Node: nodeKey("self"), Netmap: maps,
			Endpoints: func() ([]netip.AddrPort, time.Time, <-chan struct{}) { return nil, time.Time{}, nil },
			SetPath:   func(_ key.NodePublic, to *Path) { path = to },
			Expire:    func(k key.NodePublic) { expired = append(expired, k) },
			Echo: func(ctx context.Context, to netip.Addr, _ []byte) (time.Duration, error) {
				latency := map[netip.Addr]time.Duration{slow.Addr(): 30 * time.Millisecond, fast.Addr(): 10 * time.Millisecond}[to]
				if latency == 0 {
					<-ctx.Done()
					return 0, ctx.Err()
				}
				return latency, actor.Sleep(ctx, latency)
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- p.Serve(ctx) }()
		for range 4 {
			p.Sending(plain.Key)
			time.Sleep(time.Second) // fake time
		}
		synctest.Wait()
		if path == nil || path.Best != direct(fast) || !path.Also.IsZero() {
			t.Errorf("path %+v, want %v", path, fast)
		}
		changed := *other
		changed.Disco = discoKey(2)
		maps.Store(&netmap.Netmap{Peers: []*netmap.Peer{plain, &changed}})
		synctest.Wait()
		if len(expired) != 1 || expired[0] != other.Key {
			t.Errorf("sessions reset: %v", expired)
		}
		maps.Store(&netmap.Netmap{})
		synctest.Wait()
		if path != nil {
			t.Errorf("path %+v of a peer that is gone", path)
		}
		cancel()
		<-done
	})
}
