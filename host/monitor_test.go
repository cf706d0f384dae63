package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A fakeNetwork is a host whose interfaces and default route a test sets.
type fakeNetwork struct {
	Network

	mu       sync.Mutex
	link     Link
	seeErr   error // of Interfaces
	routeErr error // of DefaultRoute
	watchErr error // of Watch, at once
	watches  int
	looks    int
	changed  func() // of the Watch under way
}

func (n *fakeNetwork) Interfaces() ([]Interface, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.looks++
	return n.link.Interfaces, n.seeErr
}

func (n *fakeNetwork) DefaultRoute() (Route, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.routeErr == nil && n.link.Default == (Route{}) {
		return Route{}, fmt.Errorf("fake: %w", ErrNoRoute)
	}
	return n.link.Default, n.routeErr
}

func (n *fakeNetwork) Watch(ctx context.Context, changed func()) error {
	n.mu.Lock()
	n.watches++
	n.changed = changed
	err := n.watchErr
	n.mu.Unlock()
	if err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// set changes the host without a word, become tells of it, too.
func (n *fakeNetwork) set(s string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.link = link(s)
}

func (n *fakeNetwork) become(s string) {
	n.set(s)
	n.mu.Lock()
	changed := n.changed
	n.mu.Unlock()
	changed()
}

func (n *fakeNetwork) count(v *int) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return *v
}

// serve runs m until stop, which fails the test unless Serve returns the
// context's error.
func serve(t *testing.T, m *Monitor) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Serve(ctx) }()
	return func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve returned %v, want context.Canceled", err)
		}
	}
}

func wantCounts(t *testing.T, l Link, major, minor, slept uint64) {
	t.Helper()
	if l.Major != major || l.Minor != minor || l.Slept != slept {
		t.Errorf("major %d, minor %d, slept %d; want %d, %d, %d", l.Major, l.Minor, l.Slept, major, minor, slept)
	}
}

const (
	onEthernet = "eth0 192.168.1.1; lo 127.0.0.1/8; eth0 192.168.1.5/24"
	onWiFi     = "wlan0 192.168.7.1; lo 127.0.0.1/8; wlan0 192.168.7.9/24"
	nowhere    = "-; lo 127.0.0.1/8"
)

// TestMonitorFollows: the first Link comes at once and counts nothing, a move
// is published 50 ms after it was told, and a host without network is not Up
// (PATH-63).
func TestMonitorFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(fakeNetwork)
		n.set(onEthernet)
		m := NewMonitor(n, nil)
		l, changed := m.Link().Load()
		if !l.Up || !l.HasV4 || !l.HasV6 || l.Interfaces != nil {
			t.Errorf("before the first look: %+v", l)
		}
		start := time.Now()
		defer serve(t, m)()
		<-changed
		l, changed = m.Link().Load()
		if d := time.Since(start); d != 0 {
			t.Errorf("the first Link took %v", d)
		}
		wantCounts(t, l, 0, 0, 0)
		if !l.equal(link(onEthernet)) || !l.Up || !l.HasV4 || l.HasV6 {
			t.Errorf("first Link %+v", l)
		}

		steps := []struct {
			link         string
			major, minor uint64
			up           bool
		}{
			{onWiFi, 1, 0, true},
			{nowhere, 1, 1, false},
			{onWiFi, 2, 1, true},
		}
		for _, s := range steps {
			time.Sleep(time.Minute)
			synctest.Wait()
			start = time.Now()
			n.become(s.link)
			<-changed
			if d := time.Since(start); d != settle {
				t.Errorf("%q was published after %v, want %v", s.link, d, settle)
			}
			l, changed = m.Link().Load()
			wantCounts(t, l, s.major, s.minor, 0)
			if l.Up != s.up {
				t.Errorf("%q: up %v", s.link, l.Up)
			}
		}
	})
}

// TestMonitorCoalesces: an address and its route, told 10 ms apart, are one
// change; a flapping interface is one each second (PATH-63).
func TestMonitorCoalesces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(fakeNetwork)
		n.set(nowhere)
		m := NewMonitor(n, nil)
		defer serve(t, m)()
		time.Sleep(time.Minute)
		n.become("-; lo 127.0.0.1/8; wlan0 192.168.7.9/24")
		time.Sleep(10 * time.Millisecond)
		n.become(onWiFi)
		time.Sleep(time.Minute)
		wantCounts(t, m.Link().Get(), 1, 0, 0)

		looks := n.count(&n.looks)
		for i := range 1000 { // ten seconds of flapping
			n.become([]string{onEthernet, onWiFi}[i%2])
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		if l := m.Link().Get(); l.Major-1 > 11 {
			t.Errorf("%d changes are counted in ten seconds, want one a second", l.Major-1)
		}
		if got := n.count(&n.looks) - looks; got > 41 {
			t.Errorf("%d looks at ten seconds of changes, want four a second", got)
		}
		if l := m.Link().Get(); !l.equal(link(onWiFi)) {
			t.Errorf("the last state is not known: %+v", l)
		}
	})
}

// TestMonitorHearsThroughNoise: what counts for nothing holds the news of a move
// back by a quarter of a second, not by the second of PATH-63.
func TestMonitorHearsThroughNoise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(fakeNetwork)
		n.set(onEthernet)
		m := NewMonitor(n, nil)
		defer serve(t, m)()
		for range 100 {
			time.Sleep(10 * time.Millisecond)
			n.become(onEthernet)
		}
		start := time.Now()
		n.become(onWiFi)
		for l, changed := m.Link().Load(); l.Major == 0; l, changed = m.Link().Load() {
			<-changed
		}
		if d := time.Since(start); d > recheck {
			t.Errorf("a move was published after %v", d)
		}
	})
}

// TestMonitorIgnores: what is no change wakes nobody; what counts for nothing
// is published without a count.
func TestMonitorIgnores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(fakeNetwork)
		n.set(onEthernet)
		m := NewMonitor(n, nil)
		defer serve(t, m)()
		time.Sleep(time.Minute)
		_, changed := m.Link().Load()
		n.become(onEthernet)
		time.Sleep(time.Minute)
		select {
		case <-changed:
			t.Error("an equal Link was published")
		default:
		}
		more := onEthernet + "; tailscale0 100.70.1.2/32"
		n.become(more)
		<-changed
		l := m.Link().Get()
		wantCounts(t, l, 0, 0, 0)
		if !l.equal(link(more)) {
			t.Errorf("the Link lacks the tunnel: %+v", l)
		}
	})
}

// TestMonitorPolls: where the host does not tell, it is looked at every 10 s
// (PATH-63).
func TestMonitorPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNetwork{watchErr: fmt.Errorf("fake: %w", errors.ErrUnsupported)}
		n.set(onEthernet)
		m := NewMonitor(n, nil)
		defer serve(t, m)()
		synctest.Wait()
		_, changed := m.Link().Load()
		n.set(onWiFi)
		start := time.Now()
		<-changed
		if d := time.Since(start); d > pollEvery+settle {
			t.Errorf("a change was found after %v", d)
		}
		wantCounts(t, m.Link().Get(), 1, 0, 0)
		time.Sleep(time.Hour)
		if got := n.count(&n.watches); got != 1 {
			t.Errorf("%d watches of a host that does not tell", got)
		}
	})
}

// TestMonitorWatchFails: a watch that breaks is begun again, and what happened
// between is not missed.
func TestMonitorWatchFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNetwork{watchErr: errors.New("broken")}
		n.set(onEthernet)
		m := NewMonitor(n, nil)
		defer serve(t, m)()
		synctest.Wait()
		n.set(onWiFi)
		time.Sleep(time.Minute)
		wantCounts(t, m.Link().Get(), 1, 0, 0)
		if got := n.count(&n.watches); got < 2 || got > 40 {
			t.Errorf("%d watches in a minute of failures", got)
		}
	})
}

// TestMonitorBlind: while the host cannot be seen the last state stays, with
// one line in the log.
func TestMonitorBlind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		n := new(fakeNetwork)
		n.set(onEthernet)
		m := NewMonitor(n, slog.New(slog.NewTextHandler(&log, nil)))
		stop := serve(t, m)
		fail := func(see, route error) {
			n.mu.Lock()
			n.seeErr, n.routeErr = see, route
			n.mu.Unlock()
			for range 3 {
				time.Sleep(time.Minute)
				n.become(onWiFi)
			}
			time.Sleep(time.Minute)
		}
		time.Sleep(time.Minute)
		fail(errors.New("no eyes"), nil)
		l := m.Link().Get()
		wantCounts(t, l, 0, 0, 0)
		if !l.equal(link(onEthernet)) {
			t.Errorf("blind: %+v", l)
		}
		fail(nil, errors.New("no map"))
		l = m.Link().Get()
		if l.Default.Interface != "eth0" {
			t.Errorf("without routes: default %+v, want that of before", l.Default)
		}
		fail(nil, errors.ErrUnsupported)
		if l = m.Link().Get(); l.Default != (Route{}) {
			t.Errorf("routes are not told: default %+v", l.Default)
		}
		stop()
		if got := strings.Count(log.String(), "cannot see"); got != 1 {
			t.Errorf("%d log lines, want one:\n%s", got, log.String())
		}
	})
}

// TestMonitorNeverSees: a host that never tells of its interfaces is held for
// Up.
func TestMonitorNeverSees(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNetwork{seeErr: errors.New("not allowed"), watchErr: errors.ErrUnsupported}
		m := NewMonitor(n, nil)
		defer serve(t, m)()
		_, changed := m.Link().Load()
		time.Sleep(time.Hour)
		l := m.Link().Get()
		wantCounts(t, l, 0, 0, 0)
		if !l.Up {
			t.Error("the host is down")
		}
		select {
		case <-changed:
			t.Error("a Link was published")
		default:
		}
	})
}

// TestMonitorRestart: counts and state outlive a restart, and a change while
// nobody looked is one.
func TestMonitorRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(fakeNetwork)
		n.set(onEthernet)
		m := NewMonitor(n, nil)
		stop := serve(t, m)
		time.Sleep(time.Minute)
		n.become(onWiFi)
		time.Sleep(time.Minute)
		stop()
		n.set(onEthernet)
		defer serve(t, m)()
		synctest.Wait()
		wantCounts(t, m.Link().Get(), 2, 0, 0)
	})
}

// TestSlept: what the wall clock says between two checks (PATH-63).
func TestSlept(t *testing.T) {
	before := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	tests := []struct {
		elapsed time.Duration
		want    change
	}{
		{-time.Hour, none}, // the clock was put back
		{15 * time.Second, none},
		{22500 * time.Millisecond, none},
		{23 * time.Second, minor},
		{10*time.Minute + 14*time.Second, minor},
		{10*time.Minute + 15*time.Second, major},
		{8 * time.Hour, major},
	}
	for _, tt := range tests {
		if got := slept(before, before.Add(tt.elapsed)); got != tt.want {
			t.Errorf("%v: class %d, want %d", tt.elapsed, got, tt.want)
		}
	}
}

// TestMonitorSleeps: a long sleep is a major change, a short one a minor
// (PATH-63).
func TestMonitorSleeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(fakeNetwork)
		n.set(onEthernet)
		m := NewMonitor(n, nil)
		var mu sync.Mutex
		var ahead time.Duration
		m.wall = func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return time.Now().Round(0).Add(ahead)
		}
		sleep := func(d time.Duration) {
			mu.Lock()
			ahead += d
			mu.Unlock()
			time.Sleep(time.Minute)
		}
		defer serve(t, m)()
		sleep(0)
		wantCounts(t, m.Link().Get(), 0, 0, 0)
		sleep(time.Minute)
		wantCounts(t, m.Link().Get(), 0, 1, 0)
		sleep(time.Hour)
		wantCounts(t, m.Link().Get(), 1, 1, 1)
		sleep(-2 * time.Hour)
		wantCounts(t, m.Link().Get(), 1, 1, 1)

		mu.Lock()
		ahead += time.Hour
		mu.Unlock()
		n.become(onEthernet) // told on waking, before the next check
		time.Sleep(settle)
		synctest.Wait()
		wantCounts(t, m.Link().Get(), 2, 1, 2)
	})
}
