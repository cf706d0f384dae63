package vpn

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// A shaken is what became of a handshake.
type shaken struct {
	version Version
	err     error
}

// shakeHands begins a handshake, of which the channel tells.
func shakeHands(ctx context.Context, s Stream, r role, order HeaderOrder) <-chan shaken {
	done := make(chan shaken, 1)
	go func() {
		v, err := shake(ctx, s, buffered(s), r, order)
		done <- shaken{v, err}
	}()
	return done
}

// VPN-03: two ends that wait for each other both speak in the end.
func TestHandshakeBothWait(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			a, b := kind(t)
			tunnel := shakeHands(t.Context(), a, roleTunnel, HeaderAuto)
			manager := shakeHands(t.Context(), b, roleManager, HeaderAuto)
			for _, done := range []<-chan shaken{tunnel, manager} {
				if s := <-done; s.err != nil || s.version != (Version{1, 3}) {
					t.Errorf("got %v, %v", s.version, s.err)
				}
			}
			a.Close()
			b.Close()
		})
	}
}

// VT-01, VPN-03, VPN-04, VPN-05: which header a raw peer sees, and after which time.
func TestHandshakeOrder(t *testing.T) {
	for _, tt := range []struct {
		order HeaderOrder
		peer  string        // what it sends
		wait  time.Duration // before it does
		want  string        // what it sees
		after time.Duration
		agree Version
	}{
		{HeaderAuto, "codervpn manager 1.3\n", 0, "codervpn tunnel 1.3", 0, Version{1, 3}},
		{HeaderAuto, "codervpn manager 1.1\n", 0, "codervpn tunnel 1.3", 0, Version{1, 1}},
		{HeaderAuto, "codervpn 1.0 manager\n", 0, "codervpn 1.0 tunnel", 0, Version{1, 0}},
		{HeaderAuto, "codervpn 1.0 manager\n", 100 * time.Millisecond, "codervpn 1.0 tunnel", 100 * time.Millisecond, Version{1, 0}},
		{HeaderAuto, "codervpn 1.0 manager\n", time.Second, "codervpn tunnel 1.3", 250 * time.Millisecond, Version{1, 0}},
		{HeaderAuto, "codervpn manager 1.3,2.1\n", time.Second, "codervpn tunnel 1.3", 250 * time.Millisecond, Version{1, 3}},
		{HeaderShipped, "codervpn 1.0 manager\n", 0, "codervpn tunnel 1.3", 0, Version{1, 0}},
		{HeaderSeed, "codervpn manager 1.3\n", time.Second, "codervpn 1.0 tunnel", 0, Version{1, 0}},
		{"", "codervpn manager 1.2\n", 0, "codervpn tunnel 1.3", 0, Version{1, 2}},
	} {
		synctest.Test(t, func(t *testing.T) {
			own, peer := streams()
			defer peer.Close()
			defer own.Close()
			start := time.Now()
			done := shakeHands(t.Context(), own, roleTunnel, tt.order)
			go func() {
				if tt.wait > 0 {
					time.Sleep(tt.wait) // fake time
				}
				io.WriteString(peer, tt.peer)
			}()
			line, err := readLine(buffered(peer))
			if after := time.Since(start); err != nil || line != tt.want || after != tt.after {
				t.Errorf("%q: saw %q after %v, %v, want %q after %v", tt.peer, line, after, err, tt.want, tt.after)
			}
			if s := <-done; s.err != nil || s.version != tt.agree {
				t.Errorf("%q: agreed on %v, %v, want %v", tt.peer, s.version, s.err, tt.agree)
			}
		})
	}
}

// VPN-08, VPN-09: a peer that says nothing, too much or another thing ends the
// stream with one error.
func TestHandshakeFails(t *testing.T) {
	for name, say := range map[string]string{
		"silent": "", "half": "codervpn mana", "too long": string(make([]byte, 300)), "other": "SSH-2.0-OpenSSH_9.6\n",
		"own role": "codervpn tunnel 1.3\n", "no common version": "codervpn manager 2.0\n",
	} {
		synctest.Test(t, func(t *testing.T) {
			own, peer := streams()
			defer peer.Close()
			start := time.Now()
			done := shakeHands(t.Context(), own, roleTunnel, HeaderAuto)
			go io.WriteString(peer, say)
			go io.Copy(io.Discard, peer)
			s := <-done
			if s.err == nil {
				t.Errorf("%s: agreed on %v", name, s.version)
			}
			if slow := errors.Is(s.err, errSlowPeer); slow != (name == "silent" || name == "half") {
				t.Errorf("%s: %v", name, s.err)
			} else if took := time.Since(start); slow && took != handshakeTimeout || !slow && took > mirrorWait {
				t.Errorf("%s: failed after %v", name, took)
			}
			if _, err := io.WriteString(peer, "x"); err == nil {
				t.Errorf("%s: the stream is open", name)
			}
		})
	}
}

// VPN-08: the caller's context ends a handshake, too, and a peer that does not
// read does not hold it up.
func TestHandshakeCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own, peer := streams()
		defer peer.Close()
		ctx, cancel := context.WithCancel(t.Context())
		done := shakeHands(ctx, own, roleManager, HeaderShipped)
		synctest.Wait()
		cancel()
		if s := <-done; !errors.Is(s.err, context.Canceled) {
			t.Errorf("got %v", s.err)
		}
	})
	own, peer := streams()
	defer peer.Close()
	if s := <-shakeHands(t.Context(), own, roleManager, "other"); s.err == nil {
		t.Error("an order that does not exist")
	}
}
