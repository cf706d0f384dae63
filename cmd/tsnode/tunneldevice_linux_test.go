package main

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/vpn"
)

// VT-12, VPN-39, VPN-43: a tunnel process takes a device as descriptor 4 and no
// other for one, asks for an address for it, carries a ping over it, and ends when
// it is gone.
func TestTunnelProcessDevice(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	own, theirs := os.NewFile(uintptr(fds[0]), "own"), os.NewFile(uintptr(fds[1]), "theirs")
	defer own.Close()
	defer theirs.Close()
	tailnet := devnet.New(t, devnet.Config{})
	joinTailnet(t, tailnet, "web")
	settings := make(chan vpn.NetworkSettings, 16)
	p := newTunnelledWith(t, []*os.File{theirs}, vpn.ManagerConfig{Apply: func(_ context.Context, s vpn.NetworkSettings) error {
		settings <- s
		return nil
	}}, "--hostname", "laptop", "--ephemeral")
	theirs.Close()

	start := vpn.StartOptions{ControlURL: tailnet.URL(), Token: tailnet.AuthKey(devnet.KeyOptions{}), Descriptor: 3}
	if err := p.Start(t.Context(), start); err == nil || !strings.Contains(err.Error(), "descriptor 3") {
		t.Errorf("start with the stream as device: %v", err)
	}
	start.Descriptor = 4
	if err := p.Start(t.Context(), start); err != nil {
		t.Fatal(err)
	}
	table, err := p.Refresh(t.Context())
	if err != nil || len(table.Agents) != 1 {
		t.Fatalf("peers %+v, %v", table, err)
	}
	from, to := (<-settings).IPv4.Addrs[0].Addr(), table.Agents[0].Addrs[0]
	if err := pingOver(own, from, to); err != nil {
		t.Error(err)
	}
	own.Close()
	<-p.Done()
	if p.ended(t); !strings.Contains(p.stderr.String(), "TUN device is gone") {
		t.Error("the process does not say that its device is gone")
	}
}

// pingOver pings an address through a device, until an answer comes.
func pingOver(device *os.File, from, to netip.Addr) error {
	message := []byte{8, 0, 0, 0, 0, 1, 0, 1} // echo request; RFC 792
	binary.BigEndian.PutUint16(message[2:], ^packet.Sum(message, 0))
	pkt, err := packet.AppendIP(nil, from, to, packet.ICMPv4, len(message))
	if err != nil {
		return err
	}
	pkt = append(pkt, message...)
	b := make([]byte, 1<<16)
	for began := time.Now(); time.Since(began) < 30*time.Second; {
		if _, err := device.Write(pkt); err != nil {
			return err
		}
		device.SetReadDeadline(time.Now().Add(200 * time.Millisecond)) // the peer may not know us yet
		n, err := device.Read(b)
		var h packet.Header
		if h.Parse(b[:n]); err == nil && h.IsEchoReply(b[:n]) && h.Src.Addr() == to {
			return nil
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
	return errors.New("no answer to pings")
}
