package tun

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed94491740/tsnode/dataplane"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/internal/ownnet"
	"github.com/seed94491740/tsnode/packet"
)

// kernelDevice makes a TUN device that is up and has both addresses of a node;
// it is nil where nobody may make one.
func kernelDevice(t *testing.T, flags uint16) *os.File {
	t.Helper()
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		ownnet.Unavailable(t, err)
		return nil
	}
	t.Cleanup(func() { f.Close() })
	if _, err := New(f, nil); err == nil || !strings.Contains(err.Error(), "attach") {
		t.Errorf("a descriptor that is not attached: %v", err)
	}
	name, err := unix.NewIfreq("tst0")
	if err != nil {
		t.Fatal(err)
	}
	name.SetUint16(flags)
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.IoctlIfreq(int(fd), unix.TUNSETIFF, name) })
	if err != nil {
		t.Fatal(err)
	}
	ownnet.IP(t, "addr add "+a4.String()+"/10 dev tst0")
	ownnet.IP(t, "link set dev tst0 mtu 1280 up")
	return f
}

// A mirror gives every packet back to the operating system with its addresses
// swapped, which changes no checksum, so that this speaks with itself.
type mirror struct {
	device  *Device
	t       *testing.T
	largest int // bytes of a packet
}

func (m *mirror) run(ctx context.Context) error {
	del, b := m.device.NewDelivery(), make([]packet.Outbound, 8)
	for {
		for n := m.device.Next(b); n > 0; n = m.device.Next(b) {
			for i := range b[:n] {
				m.reflect(del, &b[i])
			}
			del.Flush()
			m.device.Done(n)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.device.Ready():
		}
	}
}

func (m *mirror) reflect(del *Delivery, o *packet.Outbound) {
	var h packet.Header
	h.Parse(o.Head)
	if h.Version != 4 || h.Proto != packet.UDP && h.Proto != packet.TCP {
		return // what a new interface says of itself
	}
	sum := bytes.Clone(o.Head)
	if h.SetChecksum(sum); !bytes.Equal(sum, o.Head) && !o.Partial {
		m.t.Errorf("the checksum of a packet of %d bytes is wrong", len(sum))
	}
	pkt := del.Reserve(len(o.Head))
	copy(pkt, o.Head)
	copy(pkt[12:16], o.Head[16:20])
	copy(pkt[16:20], o.Head[12:16])
	merged := packet.Merged{Len: len(pkt), Count: 1}
	if o.Segment > 0 {
		merged.HeaderLen = h.Transport + int(pkt[h.Transport+12]>>4)*4
		merged.Segment, merged.Count = o.Segment, 2
	}
	m.largest = max(m.largest, len(pkt))
	del.Commit(merged)
}

// VPN-39, VPN-43: devices of each kind that Linux has carry the packets of its
// TCP and UDP both ways; with a virtio-net header TCP's travel in large pieces. One
// that is deleted ends the node.
func TestKernelPlain(t *testing.T) { testKernel(t, unix.IFF_NO_PI, "") }

func TestKernelVirtio(t *testing.T) { testKernel(t, unix.IFF_NO_PI|unix.IFF_VNET_HDR, "large") }

func testKernel(t *testing.T, flags uint16, pieces string) {
	if !ownnet.Again(t) {
		return
	}
	f := kernelDevice(t, flags|unix.IFF_TUN)
	if f == nil {
		return
	}
	d, err := New(f, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.Name() != "tst0" {
		t.Errorf("its name is %q", d.Name())
	}
	m := &mirror{device: d, t: t}
	served := serve(t, d)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	g := actor.NewGroup(ctx)
	g.Go(m.run)
	speakUDP(t)
	speakTCP(t)
	if s := d.Stats(); s.Refused > 0 {
		t.Errorf("counted %+v", s)
	}
	f.Close()
	ownnet.IP(t, "link del tst0")
	select {
	case err := <-served:
		if !errors.Is(err, dataplane.ErrDeviceGone) {
			t.Errorf("the device is deleted: %v", err)
		}
	case <-time.After(patience):
		t.Error("the device does not notice that it is deleted")
	}
	cancel()
	g.Wait()
	if large := m.largest > 1280; large != (pieces == "large") {
		t.Errorf("the largest packet has %d bytes", m.largest)
	}
}

// speakUDP sends a datagram to the mirror and gets it back.
func speakUDP(t *testing.T) {
	t.Helper()
	server, err := net.ListenPacket("udp", net.JoinHostPort(a4.String(), "7"))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client, err := net.Dial("udp", net.JoinHostPort(b4.String(), "7"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server.SetDeadline(time.Now().Add(patience))
	if _, err := client.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 64)
	if n, from, err := server.ReadFrom(b); err != nil || string(b[:n]) != "hello" || !strings.HasPrefix(from.String(), b4.String()) {
		t.Fatalf("%q from %v, %v", b[:n], from, err)
	}
}

// speakTCP sends a megabyte through the mirror.
func speakTCP(t *testing.T) {
	t.Helper()
	ln, err := net.Listen("tcp", net.JoinHostPort(a4.String(), "7"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	sent := make(chan error, 1)
	go func() {
		client, err := net.DialTimeout("tcp", net.JoinHostPort(b4.String(), "7"), patience)
		if err == nil {
			_, err = client.Write(want)
			err = errors.Join(err, client.Close())
		}
		sent <- err
	}()
	ln.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	server.SetDeadline(time.Now().Add(patience))
	got, err := io.ReadAll(server)
	if err = errors.Join(err, <-sent); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d came, %v", len(got), len(want), err)
	}
}
