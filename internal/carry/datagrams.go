package carry

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
)

// PipeDatagrams carries datagrams between the connection that asked and the one that
// was made for it until neither has received any for the time after, or ctx ends, and
// closes both.
func PipeDatagrams(ctx context.Context, asked, made net.Conn, after time.Duration, t *Traffic) {
	g := actor.NewGroup(ctx)
	idle := &idleness{after: after, began: time.Now()}
	closeBoth := func() { asked.Close(); made.Close() }
	stop := context.AfterFunc(ctx, closeBoth)
	defer stop()
	oneWay := func(to, from net.Conn, bytes *atomic.Uint64) {
		defer closeBoth()
		idle.receive(from, func(b []byte) { t.send(to, b, bytes) })
	}
	g.Go(func(context.Context) error { oneWay(made, asked, &t.In); return nil })
	oneWay(asked, made, &t.Out)
	g.Wait()
}

// maxWaiting is how many datagrams of a flow wait for its connection, and
// maxWaitingBytes how much memory those of all flows of the process have; more are
// dropped.
const (
	maxWaiting      = 16
	maxWaitingBytes = 4 << 20
)

// waitingRoom counts the bytes of datagrams that wait for a connection. As it is a
// Limit, a source that sends many leaves room to others.
var waitingRoom = NewLimit(maxWaitingBytes, 0, nil)

// DialTimeout bounds the making of a connection: a cold path through a relay takes
// seconds (SVC-80, SVC-163).
const DialTimeout = 30 * time.Second

// Datagrams are flows of datagrams that come in by one socket and go out by a
// connection each, which the first datagram of a flow makes. A flow is known by a
// key.
type Datagrams[K comparable] struct {
	// Dial makes the connection of a flow, and says how long it may be idle.
	Dial func(ctx context.Context, key K) (c net.Conn, idle time.Duration, err error)

	// Reply brings back a datagram; b is borrowed. c is the connection that has
	// received it.
	Reply func(key K, c net.Conn, b []byte)

	// Failed is told of flows without a connection.
	Failed func(key K, err error)

	Limit   *Limit
	Traffic *Traffic

	mu    sync.Mutex
	flows map[K]*datagramFlow
}

// datagramCost is what a datagram takes that waits, beside its length, in bytes: so
// those without length are bounded, too.
const datagramCost = 64

// A datagramFlow is one flow of Datagrams.
type datagramFlow struct {
	idleness
	source  netip.Addr
	conn    net.Conn // nil until it is made
	ended   bool     // there is no connection any more
	waiting [][]byte // datagrams that came before
}

// Send sends a datagram, which is borrowed, on the flow of key, and begins it as a
// child of g if there is none. source is who has sent it, for the limit.
func (d *Datagrams[K]) Send(g *actor.Group, key K, source netip.Addr, b []byte) {
	f := d.flow(g, key, source)
	if f == nil {
		d.Traffic.Dropped.Add(1)
		return
	}
	if conn := d.connOf(f, b); conn != nil {
		f.touch()
		d.Traffic.send(conn, b, &d.Traffic.In)
	}
}

// flow returns the flow of key, begun if need be; nil when there is no room.
func (d *Datagrams[K]) flow(g *actor.Group, key K, source netip.Addr) *datagramFlow {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, ok := d.flows[key]
	if ok {
		return f
	}
	if !d.Limit.Take(source) {
		return nil
	}
	d.Traffic.Flows.Add(1)
	f = &datagramFlow{idleness: idleness{began: time.Now()}, source: source}
	if d.flows == nil {
		d.flows = make(map[K]*datagramFlow)
	}
	d.flows[key] = f
	g.Go(func(ctx context.Context) error {
		defer d.Limit.Give(source)
		d.run(ctx, key, f)
		return nil
	})
	return f
}

// connOf returns the flow's connection. Before there is one, the datagram waits.
func (d *Datagrams[K]) connOf(f *datagramFlow, b []byte) net.Conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f.conn != nil {
		return f.conn
	}
	if !f.ended && len(f.waiting) < maxWaiting && waitingRoom.takeN(f.source, len(b)+datagramCost) {
		f.waiting = append(f.waiting, bytes.Clone(b))
	} else {
		d.Traffic.Dropped.Add(1)
	}
	return nil
}

// run makes the connection, sends what waits for it and brings back what comes,
// until the flow is idle or ctx ends.
func (d *Datagrams[K]) run(ctx context.Context, key K, f *datagramFlow) {
	defer d.forget(key, f)
	dctx, cancel := context.WithTimeout(ctx, DialTimeout)
	conn, idle, err := d.Dial(dctx, key)
	cancel()
	if err != nil {
		d.Failed(key, err)
		return
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	f.after = idle
	f.touch()
	for _, b := range d.dialled(f, conn) {
		d.Traffic.send(conn, b, &d.Traffic.In)
	}
	f.receive(conn, func(b []byte) {
		d.Traffic.Out.Add(uint64(len(b)))
		d.Reply(key, conn, b)
	})
}

// dialled notes the flow's connection, nil if there is none, and returns what has
// waited for it.
func (d *Datagrams[K]) dialled(f *datagramFlow, conn net.Conn) (waiting [][]byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	waiting, f.waiting, f.conn, f.ended = f.waiting, nil, conn, conn == nil
	for _, b := range waiting {
		waitingRoom.giveN(f.source, len(b)+datagramCost)
	}
	return waiting
}

// forget ends a flow, and drops what waits for it.
func (d *Datagrams[K]) forget(key K, f *datagramFlow) {
	d.Traffic.Dropped.Add(uint64(len(d.dialled(f, nil))))
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.flows, key)
}
