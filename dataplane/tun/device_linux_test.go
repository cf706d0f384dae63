package tun

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed94491740/tsnode/dataplane"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/packet"
)

const patience = 30 * time.Second // for what takes no time

// socketPair returns both ends of a socket that keeps packets apart (VPN-44).
func socketPair(t testing.TB) (own, theirs *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if err := unix.SetNonblock(fd, true); err != nil { // so that deadlines work
			t.Fatal(err)
		}
	}
	if err := unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_SNDBUF, 200_000); err != nil { // it counts twice
		t.Fatal(err)
	}
	own, theirs = os.NewFile(uintptr(fds[0]), "own"), os.NewFile(uintptr(fds[1]), "theirs")
	t.Cleanup(func() { own.Close(); theirs.Close() })
	theirs.SetDeadline(time.Now().Add(patience))
	return own, theirs
}

// newDevice returns a device on a socket and the socket's other end.
func newDevice(t testing.TB) (*Device, *os.File) {
	t.Helper()
	own, theirs := socketPair(t)
	d, err := New(own, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d, theirs
}

// serve runs a device until the test ends; served gets what Serve returns.
func serve(t *testing.T, d *Device) (served <-chan error) {
	t.Helper()
	c := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); c <- d.Serve(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return c
}

// next waits for packets as a drain loop does.
func next(t *testing.T, d *Device, b []packet.Outbound) int {
	t.Helper()
	give := time.NewTimer(patience)
	defer give.Stop()
	for {
		if n := d.Next(b); n > 0 {
			return n
		}
		select {
		case <-d.Ready():
		case <-give.C:
			t.Fatal("no packet")
		}
	}
}

// VPN-42, VPN-44: every packet that is sent into the device comes out of Next, in
// order and whole; what is none is counted, also when many come in a row.
func TestNext(t *testing.T) {
	d, theirs := newDevice(t)
	serve(t, d)
	pkts := segments(false, false, 100, 1)
	sent := make(chan error, 1)
	go func() {
		for i, p := range pkts {
			for range i % 3 * maxIdle {
				if _, err := theirs.Write([]byte("no packet")); err != nil {
					sent <- err
					return
				}
			}
			if _, err := theirs.Write(p); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	b := make([]packet.Outbound, 8)
	for i := 0; i < len(pkts); {
		n := next(t, d, b)
		for _, o := range b[:n] {
			if !bytes.Equal(o.Head, pkts[i]) {
				t.Fatalf("packet %d is %x\nwant %x", i, o.Head, pkts[i])
			}
			i++
		}
		d.Done(n)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if s := d.Stats(); s.Malformed != 99*maxIdle || s.Read != s.Malformed+100 {
		t.Errorf("counted %+v", s)
	}
}

// Packets that the node answers itself do not go to the tailnet.
func TestDivert(t *testing.T) {
	d, theirs := newDevice(t)
	pkts := segments(false, false, 10, 1)
	diverted := 0
	d.diverts = func(o *packet.Outbound) bool {
		if bytes.Equal(o.Head, pkts[9]) {
			return false
		}
		diverted++
		return true
	}
	serve(t, d)
	for _, p := range pkts {
		if _, err := theirs.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	b := make([]packet.Outbound, 8)
	if n := next(t, d, b); n != 1 || !bytes.Equal(b[0].Head, pkts[9]) || diverted != 9 {
		t.Errorf("%d packets, %d diverted", n, diverted)
	}
}

// What is delivered is written in order, and what was merged as it came (WG-71);
// there is room for any number of packets in a batch.
func TestDelivery(t *testing.T) {
	d, theirs := newDevice(t)
	want := segments(true, false, 60_000, 1600)
	merged, m := mergeSegments(want)
	del := d.NewDelivery()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 3 {
			copy(del.Reserve(len(merged)), merged)
			del.Commit(m)
			copy(del.Reserve(9), "no packet")
			del.Commit(packet.Merged{Len: 9, Count: 1})
			copy(del.Reserve(2*len(want[0])), want[0])
			del.Commit(packet.Merged{Len: len(want[0]), Count: 1})
		}
		del.Flush()
		d.Inject(want[1])
	}()
	b := make([]byte, maxFrame)
	for i, p := range expected(want) {
		if n, err := theirs.Read(b); err != nil || !bytes.Equal(b[:n], p) {
			t.Fatalf("packet %d is %x, %v\nwant %x", i, b[:n], err, p)
		}
	}
	<-done
	if s := d.Stats(); s.Written != uint64(3*len(want)+4) || s.Refused != 0 {
		t.Errorf("counted %+v", s)
	}
}

// expected is what TestDelivery delivers.
func expected(want [][]byte) (pkts [][]byte) {
	for range 3 {
		pkts = append(append(pkts, want...), want[0])
	}
	return append(pkts, want[1])
}

// VPN-43: packets that a device does not take are lost and counted, and nobody
// waits.
func TestDeliveryRefused(t *testing.T) {
	d, _ := newDevice(t)
	del := d.NewDelivery()
	pkt := segments(false, false, 1000, 1000)[0]
	for range 10_000 { // far more than a socket holds
		copy(del.Reserve(len(pkt)), pkt)
		del.Commit(packet.Merged{Len: len(pkt), Count: 1})
	}
	del.Flush()
	if s := d.Stats(); s.Refused == 0 || s.Written == 0 || s.Refused+s.Written != 10_000 {
		t.Errorf("counted %+v", s)
	}
}

// VPN-43: a device whose other side is gone ends the node with a typed error.
func TestGone(t *testing.T) {
	d, theirs := newDevice(t)
	served := serve(t, d)
	b := make([]packet.Outbound, 8)
	d.Next(b) // finds nothing
	theirs.Close()
	give := time.NewTimer(patience)
	defer give.Stop()
	for {
		select {
		case <-d.Ready():
			if n := d.Next(b); n != 0 {
				t.Fatalf("%d packets of nobody", n)
			}
		case err := <-served:
			if fatal, ok := errors.AsType[*actor.FatalError](err); !ok || !errors.Is(fatal.Err, dataplane.ErrDeviceGone) {
				t.Errorf("error %v", err)
			}
			return
		case <-give.C:
			t.Fatal("the device does not notice")
		}
	}
}

// Serve ends with its context, also while it waits for packets, and may run again.
func TestServeAgain(t *testing.T) {
	d, theirs := newDevice(t)
	b := make([]packet.Outbound, 8)
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- d.Serve(ctx) }()
		d.Next(b)
		cancel()
		if err := <-served; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	serve(t, d)
	d.Next(b)
	want := segments(false, false, 1, 1)[0]
	if _, err := theirs.Write(want); err != nil {
		t.Fatal(err)
	}
	if n := next(t, d, b); n != 1 || !bytes.Equal(b[0].Head, want) {
		t.Errorf("got %d packets", n)
	}
}

// VPN-39, VPN-41: a descriptor that is no device is refused with what it is, and a
// given one stays open.
func TestNotDevices(t *testing.T) {
	stream, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(stream[1])
	regular, err := os.Create(filepath.Join(t.TempDir(), "regular"))
	if err != nil {
		t.Fatal(err)
	}
	closed, _ := os.Open(os.DevNull)
	closed.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []*os.File{os.NewFile(uintptr(stream[0]), "stream"), regular, closed, null} {
		if _, err := New(f, nil); err == nil || !strings.Contains(err.Error(), "tun: ") {
			t.Errorf("%s: error %v", f.Name(), err)
		}
		if f != closed {
			if _, err := f.Stat(); err != nil {
				t.Errorf("%s: %v", f.Name(), err)
			}
			f.Close()
		}
	}
}

// VPN-41: a duplicate is one of its own, and closing it leaves the given number
// open.
func TestDuplicate(t *testing.T) {
	own, theirs := socketPair(t)
	raw, err := own.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var dup *os.File
	raw.Control(func(fd uintptr) { dup, err = Duplicate(fd) })
	if err != nil {
		t.Fatal(err)
	}
	if err := dup.Close(); err != nil {
		t.Error(err)
	}
	if _, err := own.Write([]byte("still open")); err != nil {
		t.Error(err)
	}
	b := make([]byte, 64)
	if n, err := theirs.Read(b); string(b[:n]) != "still open" {
		t.Errorf("%q, %v", b[:n], err)
	}
	if _, err := Duplicate(1 << 20); err == nil || !strings.Contains(err.Error(), fmt.Sprint(1<<20)) {
		t.Errorf("duplicate of nothing: %v", err)
	}
}

// A packet costs no memory in either direction.
func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Log("the race detector allocates by itself")
		return
	}
	d, theirs := newDevice(t)
	pkt := segments(false, false, 1000, 1000)[0]
	del, b, in := d.NewDelivery(), make([]packet.Outbound, 8), make([]byte, maxFrame)
	n := testing.AllocsPerRun(100, func() {
		copy(del.Reserve(len(pkt)), pkt)
		del.Commit(packet.Merged{Len: len(pkt), Count: 1})
		del.Flush()
		theirs.Read(in)
		theirs.Write(pkt)
		if d.Next(b) != 1 {
			t.Fatal("no packet")
		}
		d.Done(1)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
