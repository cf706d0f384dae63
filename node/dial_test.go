package node

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/packet"
)

var (
	one = netip.MustParseAddrPort("100.64.0.1:80")
	two = netip.MustParseAddrPort("[fd7a:115c:a1e0::1]:80")
)

// pipe returns a connection that records its Close.
type pipe struct {
	net.Conn
	closed bool
}

func (p *pipe) Close() error { p.closed = true; return nil }

// The first address answers within its head start: the second is never tried.
func TestRaceLeavesSecondAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want := &pipe{}
		var tried []netip.AddrPort
		c, err := race(t.Context(), []netip.AddrPort{one, two}, func(_ context.Context, to netip.AddrPort) (net.Conn, error) {
			tried = append(tried, to)
			time.Sleep(dialStagger - time.Millisecond)
			return want, nil
		})
		if c != want || err != nil || !slices.Equal(tried, []netip.AddrPort{one}) {
			t.Errorf("got %v, %v after trying %v", c, err, tried)
		}
	})
}

// The first address is silent: the second is tried after 300 ms (SVC-80), wins,
// and the first attempt is cancelled; a connection it still makes is closed.
func TestRaceStaggersAndClosesTheLoser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		winner, loser := &pipe{}, &pipe{}
		c, err := race(t.Context(), []netip.AddrPort{one, two}, func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			if to == one {
				<-ctx.Done()
				return loser, nil
			}
			return winner, nil
		})
		if c != winner || err != nil {
			t.Fatalf("got %v, %v", c, err)
		}
		if took := time.Since(began); took != dialStagger {
			t.Errorf("took %v, want %v", took, dialStagger)
		}
		if !loser.closed || winner.closed {
			t.Errorf("loser closed: %v, winner closed: %v", loser.closed, winner.closed)
		}
	})
}

// A failure starts the next attempt at once, and the first error is reported.
func TestRaceReportsFirstError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		first, second := errors.New("first"), errors.New("second")
		_, err := race(t.Context(), []netip.AddrPort{one, two}, func(_ context.Context, to netip.AddrPort) (net.Conn, error) {
			if to == one {
				return nil, first
			}
			return nil, second
		})
		if err != first || time.Since(began) != 0 {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
	})
}

func TestRejectEndsWatchedDial(t *testing.T) {
	var r rejects
	ctx, forget := r.watch(t.Context(), packet.TCP, one)
	other, forgetOther := r.watch(t.Context(), packet.TCP, two)
	defer forgetOther()
	r.rejected(packet.Reject{Proto: packet.UDP, Dst: one, Reason: packet.RejectACL})
	r.rejected(packet.Reject{Proto: packet.TCP, Dst: one, Reason: packet.RejectACL, MaybeBroken: true})
	if ctx.Err() != nil {
		t.Error("a reject of another flow, or an advisory one, ended the dial")
	}
	r.rejected(packet.Reject{Proto: packet.TCP, Dst: one, Reason: packet.RejectShieldsUp})
	var rejected *rejectError
	if !errors.As(context.Cause(ctx), &rejected) || rejected.reason != packet.RejectShieldsUp || !errors.Is(rejected, ErrRejected) {
		t.Errorf("cause is %v", context.Cause(ctx))
	}
	if other.Err() != nil {
		t.Error("the other dial ended, too")
	}
	forget()
	forgetOther()
	if len(r.waiting) != 0 {
		t.Errorf("%d flows are still watched", len(r.waiting))
	}
}

func TestDialErrorText(t *testing.T) {
	addr := netip.MustParseAddr("100.64.0.7")
	for _, tt := range []struct {
		err     DialError
		want    []string
		timeout bool
	}{
		{DialError{Network: "tcp", Address: "nas:22", Err: ErrNameNotFound}, []string{"dial tcp nas:22", "name not found"}, false},
		{DialError{Network: "tcp", Address: "nas:22", Peer: "nas.tailnet.test", Addr: addr, Err: ErrNoAnswer}, []string{"nas.tailnet.test, 100.64.0.7", "no path", "never heard"}, true},
		{DialError{Network: "tcp", Address: "nas:22", Peer: "nas", Addr: addr, Path: "relay fra", LastHeard: time.Now().Add(-time.Hour), Err: ErrNoAnswer}, []string{"by way of relay fra", "last heard 1h0m0s ago"}, true},
		{DialError{Network: "tcp", Address: "nas:22", Peer: "nas", Addr: addr, Reason: packet.RejectACL, Err: ErrRejected}, []string{"rejected by the tailnet's policy (access rules)"}, false},
	} {
		text := tt.err.Error()
		for _, want := range tt.want {
			if !strings.Contains(text, want) {
				t.Errorf("%q lacks %q", text, want)
			}
		}
		if tt.err.Timeout() != tt.timeout {
			t.Errorf("%q: Timeout is %v", text, !tt.timeout)
		}
	}
}

func TestParseListen(t *testing.T) {
	for _, tt := range []struct {
		proto, network, addr string
		want                 netip.AddrPort
		ok                   bool
	}{
		{"tcp", "tcp", ":80", netip.AddrPortFrom(netip.Addr{}, 80), true},
		{"tcp", "tcp", ":http", netip.AddrPortFrom(netip.Addr{}, 80), true},
		{"tcp", "tcp", "[::]:80", netip.AddrPortFrom(netip.Addr{}, 80), true},
		{"tcp", "tcp4", ":0", netip.AddrPortFrom(netip.IPv4Unspecified(), 0), true},
		{"tcp", "tcp6", ":80", netip.AddrPortFrom(netip.IPv6Unspecified(), 80), true},
		{"udp", "udp", "100.64.0.1:53", netip.MustParseAddrPort("100.64.0.1:53"), true},
		{"tcp", "tcp6", "100.64.0.1:80", netip.AddrPort{}, false},
		{"tcp", "udp", ":80", netip.AddrPort{}, false},
		{"tcp", "tcp5", ":80", netip.AddrPort{}, false},
		{"tcp", "tcp", "80", netip.AddrPort{}, false},
		{"tcp", "tcp", ":99999", netip.AddrPort{}, false},
		{"tcp", "tcp", "web:80", netip.AddrPort{}, false},
	} {
		got, err := parseListen(tt.proto, tt.network, tt.addr)
		if (err == nil) != tt.ok || tt.ok && got != tt.want {
			t.Errorf("%s %s: got %v, %v; want %v", tt.network, tt.addr, got, err, tt.want)
		}
	}
}
