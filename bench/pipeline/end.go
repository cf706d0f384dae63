package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed94491740/tsnode/dataplane"
	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/netstack"
	"github.com/seed94491740/tsnode/transport"
	"github.com/seed94491740/tsnode/transport/udp"
)

const tcpPort = 9 // discard; RFC 863

// privates are the two ends' node keys: fixed, since nothing secret is sent.
var privates = [2]key.NodePrivate{privateOf(0x11), privateOf(0x22)}

func privateOf(seed byte) key.NodePrivate {
	var raw [key.Size]byte
	for i := range raw {
		raw[i] = seed
	}
	return key.NodePrivateFromRaw(raw)
}

// addrOf is the overlay address of end i.
func addrOf(i int) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, 0, byte(i + 1)}) }

// netmapOf is the network map of end i: itself, the other, and leave to pass.
func netmapOf(i int) *netmap.Netmap {
	peer := func(i int) *netmap.Peer {
		own := []netip.Prefix{netip.PrefixFrom(addrOf(i), 32)}
		return &netmap.Peer{
			ID: netmap.NodeID(i + 1), StableID: netmap.StableID(fmt.Sprint(i)), Name: fmt.Sprintf("end%d.test.", i),
			Key: privates[i].Public(), Addresses: own, AllowedIPs: own, HomeDERP: 1, Authorized: true,
		}
	}
	return &netmap.Netmap{
		Self: peer(i), Peers: []*netmap.Peer{peer(1 - i)},
		Filter: []netmap.FilterRule{{
			SrcIPs:   []string{"*"},
			DstPorts: []netmap.NetPortRange{{IP: "*", Ports: netmap.PortRange{First: 0, Last: 65535}}},
		}},
	}
}

// runEnd is one of the two processes.
func runEnd(role string, port int, length time.Duration, streams int) error {
	me := 0
	if role == "client" {
		me = 1
	}
	stack, err := netstack.New(netstack.Config{})
	if err != nil {
		return err
	}
	defer stack.Close()
	if err := stack.SetAddresses([]netip.Addr{addrOf(me)}); err != nil {
		return err
	}
	var d *dataplane.Dataplane
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	socket := udp.New(udp.Config{Network: host.OS{}, Port: uint16(port + me), Logger: log,
		NewReceiver: func() transport.Receiver { return d.NewReceiver() }})
	other := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port+1-me))
	d, err = dataplane.New(dataplane.Config{
		Private: privates[me], Links: []dataplane.Link{stack.Links()[0]},
		NewDelivery: func() dataplane.Delivery { return stack.Links()[0].NewDelivery() },
		Underlay:    socket, Netmap: actor.NewCell(netmapOf(me)), Logger: log,
		DirectUDP: map[key.NodePublic]netip.AddrPort{privates[1-me].Public(): other},
	})
	if err != nil {
		return err
	}
	err = actor.Run(context.Background(), func(ctx context.Context, g *actor.Group) error {
		g.Go(socket.Serve)
		for _, s := range d.Services() {
			g.Go(s.Serve)
		}
		if err := ready(ctx, d, socket); err != nil {
			return err
		}
		r, err := measure(ctx, role, stack, length, streams)
		if err != nil {
			return err
		}
		if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
			return err
		}
		// The other end may still need answers: the parent says when to go.
		_, err = io.Copy(io.Discard, os.Stdin)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", role, err)
	}
	return nil
}

func measure(ctx context.Context, role string, stack *netstack.Stack, length time.Duration, streams int) (report, error) {
	if role == "server" {
		return serve(stack)
	}
	return send(ctx, stack, length, streams)
}

// ready waits until the pipeline has taken its network map and the socket is
// bound.
func ready(ctx context.Context, d *dataplane.Dataplane, socket *udp.Socket) error {
	for {
		nm, applied := d.Applied().Load()
		at, bound := socket.Bound()
		if nm != nil && at.V4.IsValid() {
			return nil
		}
		select {
		case <-applied:
		case <-bound:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// send writes for the given time over all streams, then closes them and waits
// until the other end has read everything.
func send(ctx context.Context, stack *netstack.Stack, length time.Duration, streams int) (report, error) {
	var conns []net.Conn
	for range streams {
		c, err := dial(ctx, stack)
		if err != nil {
			return report{}, err
		}
		defer c.Close()
		// The first 8 bytes tell how many streams there are.
		if err := binary.Write(c, binary.BigEndian, uint64(streams)); err != nil {
			return report{}, err
		}
		conns = append(conns, c)
	}
	m := startMeter()
	var sent atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, streams)
	for _, c := range conns {
		wg.Go(func() { errs <- write(c, length, &sent) })
	}
	wg.Wait()
	for range streams {
		if err := <-errs; err != nil {
			return report{}, err
		}
	}
	return m.stop(sent.Load()), nil
}

// dial connects to the other end, which may only just have started.
func dial(ctx context.Context, stack *netstack.Stack) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		c, err := stack.DialTCP(ctx, netip.Addr{}, netip.AddrPortFrom(addrOf(0), tcpPort))
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return c, err
		}
		if err := actor.Sleep(ctx, 10*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

func write(c net.Conn, length time.Duration, sent *atomic.Int64) error {
	block := make([]byte, 128<<10)
	for end := time.Now().Add(length); time.Now().Before(end); {
		n, err := c.Write(block)
		sent.Add(int64(n))
		if err != nil {
			return err
		}
	}
	hc, ok := c.(interface{ CloseWrite() error })
	if !ok {
		return errors.New("connection has no CloseWrite")
	}
	if err := hc.CloseWrite(); err != nil {
		return err
	}
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		return fmt.Errorf("other end did not close: %v", err)
	}
	return nil
}

// serve reads and discards until every stream has ended.
func serve(stack *netstack.Stack) (report, error) {
	ln, err := stack.ListenTCP(netip.AddrPortFrom(netip.Addr{}, tcpPort))
	if err != nil {
		return report{}, err
	}
	defer ln.Close()
	var got atomic.Int64
	var wg sync.WaitGroup
	var m meter
	for want := uint64(1); want > 0; want-- {
		c, err := ln.Accept()
		if err != nil {
			return report{}, err
		}
		var streams uint64
		if err := binary.Read(c, binary.BigEndian, &streams); err != nil {
			return report{}, err
		}
		if m.began.IsZero() {
			m, want = startMeter(), streams
		}
		wg.Go(func() { got.Add(discard(c)) })
	}
	wg.Wait()
	return m.stop(got.Load()), nil
}

func discard(c net.Conn) (n int64) {
	defer c.Close()
	buf := make([]byte, 256<<10)
	for {
		k, err := c.Read(buf)
		n += int64(k)
		if err != nil {
			return n
		}
	}
}
