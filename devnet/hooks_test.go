package devnet

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/netmap"
)

// The server asks a node: for a sign of life, for a ping of a peer, for an
// answer to an HTTP request (CTL-59..61).
func TestPings(t *testing.T) {
	n := New(t, Config{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	startClient(t, n, "a", withAuthKey(n.AuthKey(KeyOptions{})), func(c *control.Config) {
		c.C2N = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "at "+r.URL.Path) })
	})
	if err := n.AwaitOnline(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if d, err := n.Ping(ctx, "a"); err != nil || d <= 0 {
		t.Errorf("ping: %v, %v", d, err)
	}
	peer := netip.MustParseAddr("100.64.0.9")
	if resp, err := n.PingPeer(ctx, "a", peer, control.PingDisco); err != nil || resp.Type != control.PingDisco || resp.IP != peer.String() {
		t.Errorf("ping of a peer: %+v, %v", resp, err)
	}
	for path, want := range map[string]string{"/echo": "hello", "/other": "at /other"} {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, path, strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := n.C2N(ctx, "a", req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if string(b) != want || err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %q, %v", path, resp.StatusCode, b, err)
		}
	}
}

// A liveness probe is answered without Noise, too.
func TestHeadscalePing(t *testing.T) {
	n := New(t, Config{Headscale: true})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	k := n.AuthKey(KeyOptions{Reusable: true})
	startClient(t, n, "a", withAuthKey(k))
	startClient(t, n, "b", withAuthKey(k))
	if err := n.AwaitOnline(ctx, "a", "b"); err != nil {
		t.Fatal(err)
	}
	if d, err := n.Ping(ctx, "a"); err != nil || d <= 0 {
		t.Errorf("ping: %v, %v", d, err)
	}
}

// Nobody waits longer than it wants.
func TestAwait(t *testing.T) {
	n := New(t, Config{})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	newRawNode(t, n, "a").join(KeyOptions{})
	if err := n.AwaitOnline(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "Name:a") {
		t.Errorf("got %v", err)
	}
}

// A node that does not answer, or is not there, is an error; so is an answer
// that nobody waits for.
func TestPingsUnanswered(t *testing.T) {
	n := New(t, Config{})
	a := newRawNode(t, n, "a").join(KeyOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := n.Ping(ctx, "a"); !errors.Is(err, ErrOffline) {
		t.Errorf("without a stream: %v", err)
	}
	if _, err := n.Ping(ctx, "none"); !errors.Is(err, ErrNoNode) {
		t.Errorf("unknown node: %v", err)
	}
	s := a.poll()
	if _, err := n.Ping(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no answer: %v", err)
	}
	p := s.next().PingRequest
	if p == nil || !p.URLIsNoise || !strings.HasPrefix(p.URL, n.URL()+pathAnswer) {
		t.Fatalf("ping request %+v", p)
	}
	a.call(strings.TrimPrefix(p.URL, n.URL()), nil, http.StatusNotFound)
}

// Frames of tests reach the node as they are.
func TestSendMap(t *testing.T) {
	n := New(t, Config{})
	a := newRawNode(t, n, "a").join(KeyOptions{})
	if err := n.SendMap("a", new(control.MapResponse)); !errors.Is(err, ErrOffline) {
		t.Errorf("without a stream: %v", err)
	}
	s := a.poll()
	if err := n.SendMap("a", &control.MapResponse{Domain: "forged.test"}); err != nil {
		t.Fatal(err)
	}
	if m := s.next(); m.Domain != "forged.test" || m.Seq != 0 {
		t.Errorf("frame %+v", m)
	}
	if err := n.SendRaw("a", nil); err == nil {
		t.Error("an empty frame is taken")
	}
	if err := n.SendRaw("a", []byte("{")); err != nil { // no JSON: the reader gives up
		t.Fatal(err)
	}
	s.ended()
}

// A stream that is not read is told so, and nothing waits for it.
func TestForgeLimit(t *testing.T) {
	m := &member{streams: []*stream{{forged: make(chan []byte, 1)}}}
	if err := m.forge([]byte("{}")); err != nil {
		t.Error(err)
	}
	if err := m.forge([]byte("{}")); err == nil || !strings.Contains(err.Error(), "does not read") {
		t.Errorf("full: %v", err)
	}
}

func TestBlock(t *testing.T) {
	n := New(t, Config{})
	a := newRawNode(t, n, "a").join(KeyOptions{})
	s := a.poll()
	if err := n.Block("a", true); err != nil {
		t.Fatal(err)
	}
	s.ended()
	a.call(control.PathMap, a.mapRequest(), http.StatusServiceUnavailable)
	if err := n.Block("a", false); err != nil {
		t.Fatal(err)
	}
	a.poll()
}

func TestSetFailure(t *testing.T) {
	n := New(t, Config{})
	a := newRawNode(t, n, "a").join(KeyOptions{})
	for _, code := range []int{500, 429} {
		if err := n.SetFailure(control.PathMap, code); err != nil {
			t.Fatal(err)
		}
		a.call(control.PathMap, a.mapRequest(), code)
	}
	if err := n.SetFailure(control.PathMap, 0); err != nil {
		t.Fatal(err)
	}
	a.poll()
	for _, code := range []int{200, -1, 1000} {
		if err := n.SetFailure(control.PathMap, code); err == nil {
			t.Errorf("status %d is taken for a failure", code)
		}
	}
}

func TestSetDelay(t *testing.T) {
	n := New(t, Config{})
	a := newRawNode(t, n, "a").join(KeyOptions{})
	const delay = 50 * time.Millisecond
	if err := n.SetDelay(delay); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	a.poll()
	if d := time.Since(began); d < delay {
		t.Errorf("the map comes after %v", d)
	}
}

func TestSetOnline(t *testing.T) {
	n := New(t, Config{})
	a := newRawNode(t, n, "a").join(KeyOptions{})
	newRawNode(t, n, "b").join(KeyOptions{})
	s := a.poll()
	for _, online := range []bool{true, false} {
		if err := n.SetOnline("b", online); err != nil {
			t.Fatal(err)
		}
		s.until("presence of b", func() bool { return *s.peer("b").Online == online })
	}
}

func TestSetSyntheticPeers(t *testing.T) {
	n := New(t, Config{})
	a := newRawNode(t, n, "a").join(KeyOptions{})
	s := a.poll()
	for _, count := range []int{50, 20, 0} {
		if err := n.SetSyntheticPeers(count); err != nil {
			t.Fatal(err)
		}
		s.until("peers", func() bool { return len(s.peers) == count })
		keys := make(map[any]bool)
		for _, p := range s.peers {
			keys[p.Key] = true
		}
		if len(keys) != count {
			t.Errorf("%d keys of %d peers", len(keys), count)
		}
	}
	if err := n.SetSyntheticPeers(3); err != nil {
		t.Fatal(err)
	}
	for _, edit := range []struct {
		what string
		edit func(int, *SyntheticPeer)
		seen func() bool
	}{
		{"all online", func(_ int, p *SyntheticPeer) { p.Online = true }, func() bool {
			return len(s.peers) == 3 && *s.peer("synthetic-0").Online && *s.peer("synthetic-2").Online
		}},
		{"a new name", func(i int, p *SyntheticPeer) {
			if i == 1 {
				p.Name = "other"
			}
		}, func() bool { return s.peer("other") != nil && *s.peer("other").Online && s.peer("synthetic-1") == nil }},
		{"tags, and offline", func(i int, p *SyntheticPeer) {
			if i == 2 {
				p.Tags, p.Online = []string{"tag:x"}, false
			}
		}, func() bool {
			p := s.peer("synthetic-2")
			return len(p.Tags) == 1 && p.User == taggedDevices && !*p.Online && *s.peer("synthetic-0").Online
		}},
	} {
		if err := n.EditSyntheticPeers(edit.edit); err != nil {
			t.Fatal(err)
		}
		s.until(edit.what, edit.seen)
	}
	for _, count := range []int{-1, maxSynthetic + 1} {
		if err := n.SetSyntheticPeers(count); err == nil {
			t.Errorf("%d peers are made", count)
		}
	}
	// A client takes them for what they seem to be.
	if err := n.SetSyntheticPeers(3); err != nil {
		t.Fatal(err)
	}
	c := startClient(t, n, "c", withAuthKey(n.AuthKey(KeyOptions{})))
	m := c.until("synthetic peers", sees("synthetic-2"))
	if p, _ := m.PeerByName("synthetic-2"); !p.Routable() || p.Online != netmap.OnlineNo {
		t.Errorf("peer %+v", p)
	}
}
