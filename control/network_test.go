package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"

	"github.com/seed94491740/tsnode/host"
)

// A testNetwork is a host.Network within the test: connections are pipes, and
// work in a synctest bubble.
type testNetwork struct {
	host.Network // the rest panics: a control client needs only Dial

	mu     sync.Mutex
	accept map[string]func(net.Conn) // by address
	silent map[string]bool           // addresses that neither answer nor refuse
	fails  map[string]error          // addresses whose dials fail
	dials  []string
}

func newTestNetwork() *testNetwork {
	return &testNetwork{accept: make(map[string]func(net.Conn)), silent: make(map[string]bool), fails: make(map[string]error)}
}

func (n *testNetwork) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	n.mu.Lock()
	n.dials = append(n.dials, address)
	accept, silent, err := n.accept[address], n.silent[address], n.fails[address]
	n.mu.Unlock()
	switch {
	case silent:
		<-ctx.Done()
		return nil, ctx.Err()
	case err != nil:
		return nil, err
	case accept == nil:
		return nil, fmt.Errorf("dial %s %s: connection refused", network, address)
	}
	client, server := bufferedPipe()
	accept(server)
	return client, nil
}

func (n *testNetwork) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return nil, errors.New("no DNS in tests")
}

// dialed returns the addresses dialed so far.
func (n *testNetwork) dialed() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.dials...)
}

func (n *testNetwork) set(address string, accept func(net.Conn)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.accept[address] = accept
}

// bufferedPipe is a net.Pipe whose writes do not wait for a reader, as those of
// TCP do not.
func bufferedPipe() (a, b net.Conn) {
	c1, s1 := net.Pipe()
	c2, s2 := net.Pipe()
	pump := func(to, from net.Conn) {
		q := newByteQueue()
		go func() {
			_, _ = io.Copy(q, from)
			q.Close()
		}()
		go func() {
			_, _ = io.Copy(to, q)
			to.Close()
			from.Close()
		}()
	}
	pump(s2, s1)
	pump(s1, s2)
	return c1, c2
}

// A byteQueue is an unbounded io.Pipe.
type byteQueue struct {
	mu     sync.Mutex
	wake   *sync.Cond
	buf    []byte
	closed bool
}

func newByteQueue() *byteQueue {
	q := new(byteQueue)
	q.wake = sync.NewCond(&q.mu)
	return q
}

func (q *byteQueue) Write(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.buf = append(q.buf, p...)
	q.wake.Signal()
	return len(p), nil
}

func (q *byteQueue) Read(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.buf) == 0 {
		if q.closed {
			return 0, io.EOF
		}
		q.wake.Wait()
	}
	n := copy(p, q.buf)
	q.buf = q.buf[n:]
	return n, nil
}

func (q *byteQueue) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.wake.Broadcast()
	return nil
}

func newReader(r io.Reader) *bufio.Reader { return bufio.NewReader(r) }
