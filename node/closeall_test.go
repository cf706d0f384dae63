package node_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/node"
)

// SVC-177: Close ends every call that waits, with an error that says so, and may be
// called again; TestCloseRacesStart has it during Start, and a goroutine that stays
// fails the package.
func TestCloseEndsWhatWaits(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	n, peer, silent := newNode(t, tailnet, "closed"), newNode(t, tailnet, "peer"), newNode(t, tailnet, "silent")
	silent.Ephemeral = false // so that it is in the netmap when it is gone
	mute, err := peer.Listen("tcp", ":9")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	ln, err := n.Listen("tcp", ":7")
	if err != nil {
		t.Fatal(err)
	}
	pc, err := n.ListenPacket("udp", ":7")
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []*node.Node{n, peer, silent} {
		up(t, x)
	}
	sees(t, n, "peer", "silent")
	own, _ := silent.TailscaleIPs()
	silent.Close()
	reading, writing := dialNode(t, n, "peer:9"), dialNode(t, n, "peer:9") // which reads nothing and says nothing
	to, _ := peer.TailscaleIPs()
	udp, err := n.Dial(within(t, patience), "udp", netip.AddrPortFrom(to, 9).String())
	if err != nil {
		t.Fatal(err)
	}

	type ended struct {
		name string
		err  error
	}
	results, waits := make(chan ended), 0
	wait := func(name string, call func() error) {
		waits++
		started := make(chan struct{})
		go func() {
			close(started)
			results <- ended{name, call()}
		}()
		<-started
	}
	wait("Dial", func() error {
		_, err := n.Dial(within(t, patience), "tcp", netip.AddrPortFrom(own, 80).String())
		return err
	})
	wait("Ping", func() error {
		_, err := n.Ping(within(t, patience), own.String(), node.PingTSMP)
		return err
	})
	wait("Accept", func() error { _, err := ln.Accept(); return err })
	wait("Read", func() error { _, err := reading.Read(make([]byte, 1)); return err })
	wait("Write", func() error {
		for b := make([]byte, 64<<10); ; {
			if _, err := writing.Write(b); err != nil {
				return err
			}
		}
	})
	wait("ReadFrom", func() error { _, _, err := pc.ReadFrom(make([]byte, 1)); return err })
	wait("Read of UDP", func() error { _, err := udp.Read(make([]byte, 1)); return err })
	select {
	case e := <-results:
		t.Fatalf("%s does not wait: %v", e.name, e.err)
	case <-time.After(100 * time.Millisecond): // Write fills its buffers
	}
	closing := make(chan error, 2)
	for range 2 {
		go func() { closing <- n.Close() }()
	}
	for range waits {
		select {
		case e := <-results:
			if !errors.Is(e.err, net.ErrClosed) && !errors.Is(e.err, node.ErrClosed) {
				t.Errorf("%s: %v, want one that says closed", e.name, e.err)
			}
		case <-time.After(patience):
			t.Fatal("something waits after Close")
		}
	}
	for range 2 {
		if err := <-closing; err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if _, err := writing.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write after it: %v", err)
	}
	if _, err := io.WriteString(udp, "x"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write of UDP after it: %v", err)
	}
	if _, err := n.Dial(t.Context(), "tcp", "peer:9"); !errors.Is(err, node.ErrClosed) {
		t.Errorf("Dial after it: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Errorf("Close after it: %v", err)
	}
}

// dialNode connects to a node over TCP.
func dialNode(t *testing.T, n *node.Node, address string) net.Conn {
	t.Helper()
	c, err := n.Dial(within(t, patience), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
