package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// A late is a tailnet whose node has addresses only later.
type late struct {
	*loopback
	known atomic.Bool
}

func (l *late) ListenPending(network, address string) (net.Listener, error) {
	if !l.known.Load() {
		return nil, fmt.Errorf("listen %s: %w", address, ErrNotYet)
	}
	return l.loopback.ListenPending(network, address)
}

func (l *late) ListenPacket(network, address string) (net.PacketConn, error) {
	if !l.known.Load() {
		return nil, fmt.Errorf("listen %s: %w", address, ErrNotYet)
	}
	return l.loopback.ListenPacket(network, address)
}

// A forward from an address of the node waits until the node has addresses: that is
// no failure, and nothing else waits for it.
func TestForwardWaitsForTheNode(t *testing.T) {
	backend := listen(t, "tcp", "127.0.0.1:0", echo)
	l, ready := &late{loopback: new(loopback)}, make(chan struct{})
	s, _ := startSet(t, func(c *Config) {
		c.Tailnet = l
		c.Ready = func(ctx context.Context) error {
			select {
			case <-ready:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}, "-R 127.0.0.1:0:"+backend.String(), "-R 127.0.0.1:0:"+backend.String()+"/udp")
	for _, st := range s.List() {
		if st.Listen != "" || st.LastError != "" {
			t.Errorf("before: %+v", st)
		}
	}
	l.known.Store(true)
	close(ready)
	waitFor(t, "both to listen", func() bool { all := s.List(); return all[0].Listen != "" && all[1].Listen != "" })
	if got := ask(t, "tcp", s.List()[0].Listen, "x"); got != "echo x" {
		t.Errorf("got %q", got)
	}
}

// A slow is a host whose first Listen takes until it is told.
type slow struct {
	bothSides
	first          *atomic.Bool
	asked, proceed chan struct{}
}

func (s slow) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	if s.first.CompareAndSwap(false, true) {
		close(s.asked)
		<-s.proceed
	}
	return s.bothSides.Listen(ctx, network, address)
}

// A forward that takes the place of one which is just about to listen waits for it.
func TestForwardWaitsForWhatItReplaces(t *testing.T) {
	backend := listen(t, "tcp", "127.0.0.1:0", echo)
	at := filepath.Join(t.TempDir(), "s")
	h := slow{bothSides{new(loopback)}, new(atomic.Bool), make(chan struct{}), make(chan struct{})}
	s, _ := startSet(t, func(c *Config) { c.Host = h })
	first := make(chan error, 1)
	go func() { first <- s.Apply(within(t), specs(t, "-L unix:"+at+":"+backend.String())) }()
	<-h.asked
	second := make(chan error, 1)
	go func() { second <- s.Apply(within(t), specs(t, "-L unix:"+at+":"+backend.String()+",max=5")) }()
	waitFor(t, "the second to be wanted", func() bool { all := s.List(); return len(all) == 1 && strings.HasSuffix(all[0].Forward, "max=5") })
	close(h.proceed)
	if err := <-second; err != nil {
		t.Errorf("the second: %v", err)
	}
	<-first // it may have listened for a moment
	if got := ask(t, "unix", at, "x"); got != "echo x" {
		t.Errorf("got %q", got)
	}
}

// Two forwards for one port are told to be such.
func TestListenErrorNamesTheOther(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(free.Addr().String())
	free.Close()
	s, _ := startSet(t, nil, "-D "+port)
	for _, other := range []string{"-H localhost:" + port + ",max=5", "-L *:" + port + ":a:1"} {
		err = s.Apply(within(t), specs(t, "-D "+port, other))
		if err == nil || !strings.Contains(err.Error(), "-D localhost:"+port+" is for the same port") {
			t.Errorf("%s: %v", other, err)
		}
	}
	for _, network := range []string{"", "/udp"} {
		has := "-R 127.0.0.1:" + port + ":a:1" + network
		if err := s.Apply(within(t), specs(t, has)); err != nil {
			t.Fatal(err)
		}
		err = s.Apply(within(t), specs(t, has, "-R 127.0.0.1:"+port+":b:1"+network))
		if err == nil || !strings.Contains(err.Error(), has+" is for the same port") {
			t.Errorf("%s: %v", has, err)
		}
	}
}

// What is added is refused before it listens, if something else is there.
func TestAddRefusesATakenPort(t *testing.T) {
	s, _ := startSet(t, nil, "-R 127.0.0.1:0:a:1")
	for _, add := range [][]string{{"-R 7:a:1", "-R 7:b:1"}, {"-L 7:a:1", "-D 8", "-D 7"}} {
		if err := s.Add(within(t), specs(t, add...)...); err == nil || !strings.Contains(err.Error(), "is for the same port") || len(s.List()) != 1 {
			t.Errorf("%q: %v, %d forwards", add, err, len(s.List()))
		}
	}
}

// A unix socket is this user's, unless it is said who else may connect.
func TestSocketPermissions(t *testing.T) {
	dir := t.TempDir()
	own, all := filepath.Join(dir, "own"), filepath.Join(dir, "all")
	startSet(t, nil, "-L unix:"+own+":web:80", "-D unix:"+all+",mode=666")
	for path, want := range map[string]os.FileMode{own: 0o600, all: 0o666} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
}

// ssh's -W ends when it is told to, even if nobody reads what it writes.
func TestStdioEndsWhileNobodyReads(t *testing.T) {
	backend := listen(t, "tcp", "127.0.0.1:0", func(c net.Conn) { io.WriteString(c, "hello") })
	in, _ := io.Pipe()
	read, out := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	var d net.Dialer
	go func() { ended <- Stdio(ctx, d.DialContext, backend.String(), in, out) }()
	read.Read(make([]byte, 1)) // the rest blocks
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	in.Close()
	read.Close()
}
