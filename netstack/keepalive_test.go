package netstack

import (
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/faketime"

	"github.com/seed94491740/tsnode/packet"
)

// foundOut is when a peer that has vanished is found out.
var foundOut = defaultKeepAlive.Idle + time.Duration(defaultKeepAlive.Count)*defaultKeepAlive.Interval

// clocked returns two stacks whose TCP has the time that the test says.
func clocked(t *testing.T) (clock *faketime.ManualClock, a, b *Stack) {
	clock = faketime.NewManualClock()
	return clock, newStackOf(t, Config{clock: clock}, a4), newStackOf(t, Config{clock: clock}, b4)
}

// reading reads from c, and tells how that ends.
func reading(c *Conn) <-chan error {
	c.SetDeadline(time.Time{})
	ended := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		ended <- err
	}()
	return ended
}

// A peer that vanishes while a connection is idle is found out in 7 minutes, by
// who has dialled and by who has accepted: Read ends with ETIMEDOUT.
func TestVanishedPeerIsFoundOut(t *testing.T) {
	clock, a, b := clocked(t)
	unplug := join(t, a, b, segmented)
	client, server := connected(t, a, b, b4)
	patient, _ := connected(t, a, b, b4)
	patient.SetKeepAlive(false)
	unplug()
	ends := map[string]<-chan error{"dialled": reading(client), "accepted": reading(server)}
	never := reading(patient)
	clock.Advance(foundOut - time.Second)
	for name, end := range ends {
		if len(end) > 0 {
			t.Errorf("%s: Read ended too soon: %v", name, <-end)
		}
	}
	clock.Advance(time.Second)
	for name, end := range ends {
		select {
		case err := <-end:
			if !errors.Is(err, syscall.ETIMEDOUT) {
				t.Errorf("%s: Read ended with %v, want ETIMEDOUT", name, err)
			}
		case <-within(t).Done():
			t.Errorf("%s: Read goes on %v after the peer's last word", name, foundOut)
		}
	}
	clock.Advance(24 * time.Hour)
	if len(never) > 0 {
		t.Errorf("without keepalive Read ended with %v", <-never)
	}
}

// A peer that answers keeps an idle connection, however many probes it takes. The
// clock is the real one: a manual clock would not wait for answers.
func TestIdleConnectionStays(t *testing.T) {
	const count = 50
	a, b := newStack(t, a4), newStack(t, b4)
	var sent atomic.Int64
	join(t, a, b, func(t testing.TB, o *packet.Outbound, d *Delivery) {
		sent.Add(1)
		segmented(t, o, d)
	})
	client, server := connected(t, a, b, b4)
	ends := []<-chan error{reading(client), reading(server)}
	busy := net.KeepAliveConfig{Enable: true, Idle: 10 * time.Millisecond, Interval: 10 * time.Millisecond, Count: count}
	if err := errors.Join(client.SetKeepAliveConfig(busy), server.SetKeepAliveConfig(net.KeepAliveConfig{})); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return sent.Load() > 3*count }) // a probe and its answer are two
	for _, end := range ends {
		if len(end) > 0 {
			t.Fatalf("the connection has ended: %v", <-end)
		}
	}
	client.Write([]byte("x"))
	server.Write([]byte("x"))
	for _, end := range ends {
		if err := <-end; err != nil {
			t.Error(err)
		}
	}
}

// The settings of package net are taken; what is 0 is the default.
func TestSetKeepAliveConfig(t *testing.T) {
	a, b := pair(t)
	c, _ := connected(t, a, b, b4)
	of := func() (k net.KeepAliveConfig) {
		var idle tcpip.KeepaliveIdleOption
		var interval tcpip.KeepaliveIntervalOption
		c.ep.GetSockOpt(&idle)
		c.ep.GetSockOpt(&interval)
		count, _ := c.ep.GetSockOptInt(tcpip.KeepaliveCountOption)
		return net.KeepAliveConfig{Enable: c.ep.SocketOptions().GetKeepAlive(), Idle: time.Duration(idle), Interval: time.Duration(interval), Count: count}
	}
	if got := of(); got != defaultKeepAlive {
		t.Errorf("at first %+v, want %+v", got, defaultKeepAlive)
	}
	short := net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: 2 * time.Second, Count: 3}
	if err := c.SetKeepAliveConfig(short); err != nil || of() != short {
		t.Errorf("got %+v, %v; want %+v", of(), err, short)
	}
	if err := c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: -1, Interval: -1}); err != nil || of().Idle != short.Idle || of().Count != defaultKeepAlive.Count {
		t.Errorf("got %+v, %v; want the idle time as it was, the default count", of(), err)
	}
	if err := c.SetKeepAlivePeriod(time.Hour); err != nil || of().Idle != time.Hour || of().Interval != time.Hour || !of().Enable {
		t.Errorf("got %+v, %v; want an hour", of(), err)
	}
	c.Close()
	if err := c.SetKeepAliveConfig(short); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
