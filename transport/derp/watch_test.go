package derp

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed94491740/tsnode/key"
)

// An account writes down what a watcher tells.
type account struct {
	names map[key.NodePublic]string
	lines []string
}

func (a *account) add(p PeerPresent) { a.lines = append(a.lines, "+"+a.names[p.Peer]) }

func (a *account) remove(g PeerGone) {
	a.lines = append(a.lines, fmt.Sprintf("-%s %#x", a.names[g.Peer], byte(g.Reason)))
}

// TestPeerSet: DERP-94: what each message does to the account; who was added is
// removed exactly once.
func TestPeerSet(t *testing.T) {
	a, b := key.NewNode().Public(), key.NewNode().Public()
	book := &account{names: map[key.NodePublic]string{a: "a", b: "b"}}
	s := peerSet{add: book.add, remove: book.remove, limit: 2, known: map[key.NodePublic]struct{}{}}
	for _, step := range []struct {
		m          Message
		generation int
		want       string
	}{
		{ServerInfo{}, 1, ""},
		{PeerPresent{Peer: a}, 1, "+a"},
		{PeerPresent{Peer: a}, 1, "+a"}, // DERP-174: repeated
		{PeerPresent{Peer: b}, 1, "+b"},
		{PeerGone{b, GoneDisconnected}, 1, "-b 0x0"},
		{PeerGone{b, GoneDisconnected}, 1, ""},
		{PeerPresent{Peer: b}, 1, "+b"},
		{PeerGone{b, GoneNotHere}, 1, "-b 0x1"}, // a failed forward
		{KeepAlive{}, 1, ""},
		{KeepAlive{}, 2, "-a 0xf0"},
		{PeerPresent{Peer: b}, 3, "+b"},
		{PeerPresent{Peer: a}, 4, "-b 0xf0 +a"},
	} {
		book.lines = nil
		if err := s.apply(step.m, step.generation); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(book.lines, " "); got != step.want {
			t.Errorf("%T %v of connection %d: %q, want %q", step.m, step.m, step.generation, got, step.want)
		}
	}
	book.lines = nil
	s.clear()
	s.clear()
	if want := []string{"-a 0xf0"}; !cmp.Equal(book.lines, want) {
		t.Errorf("at the end %q, want %q", book.lines, want)
	}
}

// TestPeerSetBound: a relay that claims more clients than there can be is not
// believed.
func TestPeerSetBound(t *testing.T) {
	w := newWatcher(WatchOptions{Add: func(PeerPresent) {}, Remove: func(PeerGone) {}})
	w.peers.limit = 2
	peers := []PeerPresent{{Peer: key.NewNode().Public()}, {Peer: key.NewNode().Public()}, {Peer: key.NewNode().Public()}}
	for i, want := range []bool{true, true, false} {
		if err := w.peers.apply(peers[i], 0); (err == nil) != want {
			t.Errorf("client %d of at most 2: %v", i+1, err)
		}
	}
	if err := w.peers.apply(peers[0], 0); err != nil {
		t.Errorf("a repeated one: %v", err)
	}
}

// TestWatcherLog: DERP-94: the number of clients is logged when the first flood
// is over or takes too long, then every 10 s if it changes.
func TestWatcherLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		start := time.Now()
		log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Duration("at", time.Since(start))
			}
			return a
		}}))
		w := newWatcher(WatchOptions{Add: func(PeerPresent) {}, Remove: func(PeerGone) {}, Logger: log})
		defer w.close()
		arrive := func(n int, every time.Duration) {
			for range n {
				w.peers.apply(PeerPresent{Peer: key.NewNode().Public()}, 1)
				w.counted(time.Now())
				time.Sleep(every) // fake time
			}
		}
		arrive(3, 100*time.Millisecond) // logged 200 ms after the last
		time.Sleep(time.Minute)         // fake time
		arrive(5, time.Second)          // logged 10 s after the first
		time.Sleep(time.Minute)         // fake time
		synctest.Wait()
		var got []string
		for line := range strings.Lines(out.String()) {
			got = append(got, strings.Join(strings.Fields(strings.ReplaceAll(line, `msg="derp relay watched"`, "")), " "))
		}
		want := []string{"at=400ms level=DEBUG clients=3", "at=1m10.3s level=DEBUG clients=8"}
		if !cmp.Equal(got, want) {
			t.Errorf("logged %q, want %q", got, want)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		at := time.Duration(0)
		start := time.Now()
		log := slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == "clients" && at == 0 {
				at = time.Since(start)
			}
			return a
		}}))
		w := newWatcher(WatchOptions{Add: func(PeerPresent) {}, Logger: log})
		defer w.close()
		for range 50 { // a flood that does not end
			w.peers.apply(PeerPresent{Peer: key.NewNode().Public()}, 1)
			w.counted(time.Now())
			time.Sleep(150 * time.Millisecond) // fake time
			synctest.Wait()
		}
		if at < floodMax || at > floodMax+floodQuiet {
			t.Errorf("an endless flood was logged after %v, want 2 s", at)
		}
	})
}
