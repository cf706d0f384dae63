package wireguard

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
)

// A deviceNode is upstream's Device in a world.
type deviceNode struct {
	d    *device.Device
	wire *deviceWire
	tun  *deviceTUN
}

// devicePeers keeps upstream's peers reachable: they have finalizers that receive
// from channels made in a bubble, and end the process if they run after it
// (WG-89).
var devicePeers struct {
	sync.Mutex
	kept []*device.Peer
}

// engineUpstream makes a node with upstream's Device.
func engineUpstream(w *engineWorld, name string) engineNode {
	n := &deviceNode{
		wire: &deviceWire{w: w, name: name, in: make(chan []byte, 4096)},
		tun:  &deviceTUN{w: w, name: name, out: make(chan []byte, 4096), events: make(chan tun.Event, 2), done: make(chan struct{})},
	}
	n.d = device.NewDevice(n.tun, n.wire, device.NewLogger(device.LogLevelSilent, ""))
	private, public := w.keys[name].Raw(), w.keys[other(name)].Public().Raw()
	err := n.d.IpcSet(fmt.Sprintf("private_key=%x\npublic_key=%x\nendpoint=b\nallowed_ip=%v/32\n", private, public, engineAddr(other(name))))
	if err == nil {
		err = n.d.Up()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	devicePeers.Lock()
	defer devicePeers.Unlock()
	devicePeers.kept = append(devicePeers.kept, n.d.LookupPeer(device.NoisePublicKey(public)))
	return n
}

func (n *deviceNode) take(b []byte) { n.wire.in <- b }
func (n *deviceNode) close()        { n.d.Close() }

func (n *deviceNode) send(pkts ...[]byte) {
	for _, p := range pkts {
		n.tun.out <- p
	}
}

// A deviceWire is the world's wire as upstream's bind.
type deviceWire struct {
	w    *engineWorld
	name string
	in   chan []byte

	mu   sync.Mutex
	done chan struct{}
}

func (b *deviceWire) Open(uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	done := make(chan struct{})
	b.done = done
	receive := func(packets [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		select {
		case <-done:
			return 0, net.ErrClosed
		case m := <-b.in:
			sizes[0], eps[0] = copy(packets[0], m), deviceEndpoint("b")
			return 1, nil
		}
	}
	return []conn.ReceiveFunc{receive}, 1, nil
}

func (b *deviceWire) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.done != nil {
		close(b.done)
		b.done = nil
	}
	return nil
}

func (b *deviceWire) Send(packets [][]byte, _ conn.Endpoint) error {
	for _, p := range packets {
		b.w.transmit(b.name, p)
	}
	return nil
}

func (*deviceWire) SetMark(uint32) error                          { return nil }
func (*deviceWire) BatchSize() int                                { return 1 }
func (*deviceWire) ParseEndpoint(s string) (conn.Endpoint, error) { return deviceEndpoint(s), nil }

type deviceEndpoint string

func (deviceEndpoint) ClearSrc()             {}
func (deviceEndpoint) SrcToString() string   { return "" }
func (e deviceEndpoint) DstToString() string { return string(e) }
func (e deviceEndpoint) DstToBytes() []byte  { return []byte(e) }
func (deviceEndpoint) DstIP() netip.Addr     { return netip.MustParseAddr("192.0.2.1") }
func (deviceEndpoint) SrcIP() netip.Addr     { return netip.Addr{} }

// A deviceTUN is the application of upstream's Device.
type deviceTUN struct {
	w      *engineWorld
	name   string
	out    chan []byte
	events chan tun.Event
	done   chan struct{}
	once   sync.Once
}

func (t *deviceTUN) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	select {
	case <-t.done:
		return 0, os.ErrClosed
	case p := <-t.out:
		sizes[0] = copy(bufs[0][offset:], p)
		return 1, nil
	}
}

func (t *deviceTUN) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		t.w.deliver(t.name, b[offset:])
	}
	return len(bufs), nil
}

func (t *deviceTUN) Close() error {
	t.once.Do(func() { close(t.done); close(t.events) })
	return nil
}

func (*deviceTUN) File() *os.File             { return nil }
func (*deviceTUN) MTU() (int, error)          { return 1280, nil }
func (*deviceTUN) Name() (string, error)      { return "device", nil }
func (t *deviceTUN) Events() <-chan tun.Event { return t.events }
func (*deviceTUN) BatchSize() int             { return 1 }

// everyPair runs a test with us as "a" and upstream as "b", then with both ours.
func everyPair(t *testing.T, test func(w *engineWorld)) {
	t.Run("upstream", func(t *testing.T) { engineTest(t, engineOurs, engineUpstream, test) })
	t.Run("ours", func(t *testing.T) { engineTest(t, engineOurs, engineOurs, test) })
}

// TestFirstPacket: a tunnel opens with the first packet of either side, and
// packets sent before there is a key arrive in order.
func TestFirstPacketEitherSide(t *testing.T) {
	for _, from := range []string{"a", "b"} {
		everyPair(t, func(w *engineWorld) {
			w.node(from).send(enginePacket(from, "one"), enginePacket(from, "two"))
			w.node(from).send(enginePacket(from, "three"))
			w.sleep(engineRTT * 2)
			w.wantArrived(other(from), "one", "two", "three")
			w.wantTimes(other(from)+" gets one", 0, engineRTT*3/2)
			w.node(other(from)).send(enginePacket(other(from), "back"))
			w.sleep(engineRTT)
			w.wantArrived(from, "back")
			if n := w.seen(from+">"+other(from)+" initiation") + w.seen(other(from)+">"+from+" initiation"); n != 1 {
				w.t.Errorf("%d initiations\n%s", n, w.story())
			}
		})
	}
}

// TestSizes: packets of every length arrive as they were, with padding of 0 to 15
// bytes (WG-28).
func TestSizes(t *testing.T) {
	everyPair(t, func(w *engineWorld) {
		var want [2][]string
		for n := 1; n <= 1260; n++ {
			text := string(bytes.Repeat([]byte{byte('a' + n%26)}, n))
			for i, from := range []string{"a", "b"} {
				w.node(from).send(enginePacket(from, text))
				want[1-i] = append(want[1-i], engineTextOf(enginePacket(from, text)))
			}
			if n == 1 || n%50 == 0 {
				w.sleep(time.Second)
			}
		}
		w.sleep(time.Second)
		w.wantArrived("a", want[0]...)
		w.wantArrived("b", want[1]...)
	})
}
