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
	"syscall"
	"testing"
)

// What did not change does not notice; what is gone ends; what is new begins.
func TestApplyLeavesAloneWhatDidNotChange(t *testing.T) {
	backend := listen(t, "tcp", "127.0.0.1:0", func(c net.Conn) { io.Copy(c, c) })
	stays, goes := "-L 0:"+backend.String(), "-L 127.0.0.1:0:"+backend.String()+",max=9"
	s, _ := startSet(t, nil, stays, goes)
	before := s.List()
	kept, ended := dial(t, "tcp", before[0].Listen), dial(t, "tcp", before[1].Listen)
	for _, c := range []net.Conn{kept, ended} {
		ping(t, c)
	}
	if err := s.Apply(within(t), specs(t, "-R 0:"+backend.String(), stays)); err != nil {
		t.Fatal(err)
	}
	after := s.List()
	if len(after) != 2 || after[1].Listen != before[0].Listen || after[1].Open != 1 {
		t.Errorf("after the change: %+v", after)
	}
	ping(t, kept)
	ping(t, dial(t, "tcp", after[0].Listen))
	if _, err := ended.Read(make([]byte, 1)); err == nil {
		t.Error("a connection of a forward that is gone is open")
	}
	if c, err := net.Dial("tcp", before[1].Listen); err == nil {
		c.Close()
		t.Error("a forward that is gone still listens")
	}
}

func ping(t *testing.T, c net.Conn) {
	t.Helper()
	io.WriteString(c, "x")
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatalf("no echo: %v", err)
	}
}

// A forward whose options changed has its port back at once.
func TestApplyReopensAPort(t *testing.T) {
	backend := listen(t, "tcp", "127.0.0.1:0", echo)
	s, _ := startSet(t, nil, "-L 0:"+backend.String())
	_, port, _ := net.SplitHostPort(s.List()[0].Listen)
	for _, option := range []string{"", ",max=5", ",max=6"} {
		if err := s.Apply(within(t), specs(t, "-L "+port+":"+backend.String()+option)); err != nil {
			t.Fatal(err)
		}
		if got := ask(t, "tcp", s.List()[0].Listen, "x"); got != "echo x" {
			t.Errorf("with %q: got %q", option, got)
		}
	}
}

// What cannot listen is told, the rest works, and it is tried again.
func TestApplyTellsWhatCannotListen(t *testing.T) {
	backend := listen(t, "tcp", "127.0.0.1:0", echo)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	s, _ := startSet(t, nil)
	err = s.Apply(within(t), specs(t, "-L "+port+":"+backend.String(), "-L 0:"+backend.String()))
	var listenErr *ListenError
	if !errors.As(err, &listenErr) || !errors.Is(err, syscall.EADDRINUSE) || listenErr.Spec.Listen != "localhost:"+port {
		t.Fatalf("got %v", err)
	}
	if got := ask(t, "tcp", s.List()[1].Listen, "x"); got != "echo x" {
		t.Errorf("the other forward: %q", got)
	}
	if st := s.List()[0]; st.Listen != "" || !strings.Contains(st.LastError, "in use") {
		t.Errorf("status %+v", st)
	}
	taken.Close()
	waitFor(t, "the forward to listen", func() bool { return s.List()[0].Listen != "" })
}

// SVC-175: open connections go on while nothing is accepted, until they end.
func TestDrainWaitsForConnections(t *testing.T) {
	backend := listen(t, "tcp", "127.0.0.1:0", func(c net.Conn) { io.Copy(c, c) })
	s, _ := startSet(t, nil, "-L 0:"+backend.String(), "-L 0:"+backend.String()+"/udp", "-H 0", "-D 0")
	c := dial(t, "tcp", s.List()[0].Listen)
	ping(t, c)
	io.WriteString(dial(t, "udp", s.List()[1].Listen), "a flow, which is not waited for")
	waitFor(t, "the flow", func() bool { return s.List()[1].Open == 1 })
	if n := s.Connections(); n != 1 {
		t.Errorf("%d connections to wait for", n)
	}
	over, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Drain(over); !errors.Is(err, context.Canceled) {
		t.Errorf("Drain with an open connection, and no time: %v", err)
	}
	for _, st := range s.List() {
		if late, err := net.Dial("tcp", st.Listen); st.Listen != "" && err == nil {
			late.Close()
			t.Errorf("%s still accepts", st.Forward)
		}
	}
	ping(t, c)
	c.Close()
	if err := s.Drain(within(t)); err != nil {
		t.Errorf("Drain: %v", err)
	}
}

// Without time, and without connections, nothing is left to wait for.
func TestDrainOfNothingNeedsNoTime(t *testing.T) {
	s, _ := startSet(t, nil, "-L 0:a:1", "-D 0")
	all := s.List()
	over, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Drain(over); err != nil {
		t.Errorf("Drain: %v", err)
	}
	for _, st := range all {
		if c, err := net.Dial("tcp", st.Listen); err == nil {
			c.Close()
			t.Errorf("%s still accepts", st.Forward)
		}
	}
}

// A unix socket that a process has left behind is no hindrance, one in use is.
func TestListenOnUnixSocketLeftBehind(t *testing.T) {
	backend := listen(t, "tcp", "127.0.0.1:0", echo)
	at := filepath.Join(t.TempDir(), "s")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: at, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	spec := "-L unix:" + at + ":" + backend.String()
	s, _ := startSet(t, nil)
	if err := s.Apply(within(t), specs(t, spec)); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a socket in use: %v", err)
	}
	if err := s.Apply(within(t), nil); err != nil {
		t.Fatal(err)
	}
	left.Close()
	if err := s.Apply(within(t), specs(t, spec)); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, "unix", at, "x"); got != "echo x" {
		t.Errorf("got %q", got)
	}
	if err := s.Apply(within(t), nil); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the socket to go", func() bool { _, err := os.Stat(at); return os.IsNotExist(err) })
}

// A path that is a file or a folder is a mistake, and both stay as they are.
func TestListenKeepsFilesThatAreNoSockets(t *testing.T) {
	dir := t.TempDir()
	file, folder := filepath.Join(dir, "notes.txt"), filepath.Join(dir, "folder")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	s, _ := startSet(t, nil)
	for _, path := range []string{file, folder} {
		for _, spec := range []string{"-L unix:" + path + ":web:80", "-D unix:" + path, "-H unix:" + path} {
			if err := s.Add(within(t), specs(t, spec)...); err == nil || !strings.Contains(err.Error(), path+": a file that is no socket") {
				t.Errorf("%s: %v", spec, err)
			}
		}
	}
	if b, err := os.ReadFile(file); string(b) != "precious" {
		t.Errorf("the file has %q, %v", b, err)
	}
	if info, err := os.Lstat(folder); err != nil || !info.IsDir() {
		t.Errorf("the folder: %v, %v", info, err)
	}
}

// SVC-166: a SOCKS5 and an HTTP proxy on one address are one, each twice is once.
func TestMerge(t *testing.T) {
	want := specs(t, "-D 1080", "-L 1:a:1", "-H 1080", "-D 1080", "-H 3128", "-L 1:a:1", "-H 0", "-D 0")
	got := merge(want)
	texts := "[-D and --http-proxy localhost:1080 -L localhost:1:a:1 --http-proxy localhost:3128 --http-proxy localhost:0 -D localhost:0]"
	if fmt.Sprint(got) != texts {
		t.Errorf("got %v, want %s", got, texts)
	}
}

// ssh's -W: both ends of a connection are standard input and output.
func TestStdio(t *testing.T) {
	backend := listen(t, "tcp", "127.0.0.1:0", echo)
	var d net.Dialer
	var out strings.Builder
	if err := Stdio(within(t), d.DialContext, backend.String(), strings.NewReader("hello"), &out); err != nil || out.String() != "echo hello" {
		t.Errorf("got %q, %v", out.String(), err)
	}
	if err := Stdio(within(t), d.DialContext, nobody(t), strings.NewReader(""), &out); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("to nobody: %v", err)
	}
}

// What is added stays when others are applied, and goes when it is removed; each
// change leaves the connections of the others alone.
func TestAddAndRemove(t *testing.T) {
	backend := listen(t, "tcp", "127.0.0.1:0", func(c net.Conn) { io.Copy(c, c) })
	applied, added := "-L 0:"+backend.String(), "-L 0:"+backend.String()+",max=9"
	s, _ := startSet(t, nil, applied)
	if err := s.Add(within(t), specs(t, added, applied)...); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(within(t), specs(t, "-R 0:"+backend.String(), applied)); err != nil {
		t.Fatal(err)
	}
	all := s.List()
	if len(all) != 3 || all[2].Forward != "-L localhost:0:"+backend.String()+",max=9" {
		t.Fatalf("forwards %+v", all)
	}
	kept, ended := dial(t, "tcp", all[0].Listen), dial(t, "tcp", all[2].Listen)
	ping(t, kept)
	ping(t, ended)
	gone := specs(t, "-L 0:"+backend.String(), "-L 1:nowhere:1")
	if err := s.Remove(within(t), gone...); !errors.Is(err, ErrNoForward) || len(s.List()) != 3 {
		t.Errorf("Remove of one that is not there: %v, %d left", err, len(s.List()))
	}
	if err := s.Remove(within(t), gone[0]); err != nil {
		t.Fatal(err)
	}
	if all := s.List(); len(all) != 1 {
		t.Errorf("left are %+v", all)
	}
	if _, err := ended.Read(make([]byte, 1)); err == nil {
		t.Error("a connection of a forward that was removed is open")
	}
	ping(t, kept)
}

// What cannot listen is not kept, nor is what was added with it.
func TestAddKeepsAllOrNothing(t *testing.T) {
	taken := listen(t, "tcp", "127.0.0.1:0", echo)
	s, _ := startSet(t, nil, "-L 0:a:1")
	err := s.Add(within(t), specs(t, "-L 0:a:1", "-L 0:b:2", fmt.Sprintf("-L %d:b:3", taken.(*net.TCPAddr).Port))...)
	var listenErr *ListenError
	if !errors.As(err, &listenErr) || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v", err)
	}
	if all := s.List(); len(all) != 1 || all[0].Forward != "-L localhost:0:a:1" {
		t.Errorf("left are %+v", all)
	}
}

// What a caller does with its slice once the set has it changes nothing.
func TestApplyKeepsItsOwn(t *testing.T) {
	backend := listen(t, "tcp", "127.0.0.1:0", func(c net.Conn) { io.Copy(c, c) })
	s, _ := startSet(t, nil)
	want := specs(t, "-L 0:"+backend.String(), "-L 0:"+backend.String()+",max=9")
	if err := s.Apply(within(t), want); err != nil {
		t.Fatal(err)
	}
	held := dial(t, "tcp", s.List()[0].Listen)
	ping(t, held)
	clear(want)
	if err := s.Add(within(t), specs(t, "-L 0:b:2")...); err != nil {
		t.Fatal(err)
	}
	if all := s.List(); len(all) != 3 || all[0].Forward != "-L localhost:0:"+backend.String() {
		t.Errorf("forwards %+v", all)
	}
	ping(t, held)
}

// A spec that no text stands for is refused, and changes nothing: the zero one would
// be a proxy on all addresses.
func TestSetRefusesWhatNoTextStandsFor(t *testing.T) {
	s, _ := startSet(t, nil, "-L 0:a:1")
	for _, bad := range []Spec{
		{},
		{Kind: Mixed + 1, Network: "tcp", Listen: "localhost:0", Target: "a:1"},
		{Kind: SOCKS, Network: "tcp"},
		{Kind: Local, Network: "tcp", Listen: "localhost:0"},
		{Kind: Local, Network: "tcp", Listen: "localhost:", Target: "a:1"},
		{Kind: Remote, Network: "tcp", Listen: ":1", Target: "unix:"},
		{Kind: Local, Listen: "localhost:0", Target: "a:1"},
	} {
		want := append(specs(t, "-L 0:b:2"), bad)
		if err := s.Apply(within(t), want); err == nil || !strings.Contains(err.Error(), "forward ") {
			t.Errorf("Apply of %q: %v", bad.String(), err)
		}
		if err := s.Add(within(t), want...); err == nil {
			t.Errorf("Add takes %q", bad.String())
		}
	}
	if all := s.List(); len(all) != 1 || all[0].Forward != "-L localhost:0:a:1" {
		t.Errorf("forwards %+v", all)
	}
}

// A set has a bound.
func TestAddIsBounded(t *testing.T) {
	w := wanted{applied: make([]Spec, MaxForwards-1)}
	if _, err := w.add(specs(t, "-L 0:a:1", "-L 0:b:1")); err == nil {
		t.Error("one too many was taken")
	}
	if _, err := w.add(specs(t, "-L 0:a:1")); err != nil {
		t.Error(err)
	}
}

// What comes while all ends is refused.
func TestDrainedSetTakesNoForwards(t *testing.T) {
	s, _ := startSet(t, nil)
	if err := s.Drain(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(within(t), specs(t, "-L 0:a:1")); !errors.Is(err, ErrDrained) {
		t.Errorf("Apply: %v", err)
	}
	if err := s.Add(within(t), specs(t, "-L 0:a:1")...); !errors.Is(err, ErrDrained) {
		t.Errorf("Add: %v", err)
	}
	if all := s.List(); len(all) != 0 {
		t.Errorf("forwards %+v", all)
	}
}
