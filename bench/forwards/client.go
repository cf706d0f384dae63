package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
)

// sources are how many addresses of loopback connections come from: one has 28,000
// ports, and each is in TIME-WAIT for a minute.
const sources = 16

// tries is how often a datagram is sent again that was not answered.
const tries = 5

// A client puts load on the near node.
type client struct {
	*settings
	near     *process
	tcp, udp string
}

// A row is one line of the table.
type row struct {
	name                string
	held                int // at once; 0: none
	took                time.Duration
	median, most        time.Duration // of opening one: the last is of the slowest percent
	before, with, after int64         // bytes
}

// hold opens connections and keeps them.
func (c *client) hold(ctx context.Context) (row, error) {
	return c.measure(ctx, row{name: fmt.Sprintf("%d connections held", c.conns), held: c.conns}, c.conns, c.open)
}

// flow opens flows of datagrams and keeps them.
func (c *client) flow(ctx context.Context) (row, error) {
	return c.measure(ctx, row{name: fmt.Sprintf("%d UDP flows held", c.flows), held: c.flows}, c.flows, c.openFlow)
}

// cycle opens connections and closes each at once.
func (c *client) cycle(ctx context.Context) (row, error) {
	return c.measure(ctx, row{name: fmt.Sprintf("%d connections opened and closed", c.cycles)}, c.cycles, func(ctx context.Context, i int) (net.Conn, error) {
		conn, err := c.open(ctx, i)
		if err != nil {
			return nil, err
		}
		conn.(*net.TCPConn).CloseWrite()
		_, err = io.Copy(io.Discard, conn)
		return nil, errors.Join(err, conn.Close())
	})
}

// measure calls open n times, c.at at a time, and keeps the connections until the
// memory is read.
func (c *client) measure(ctx context.Context, r row, n int, open func(context.Context, int) (net.Conn, error)) (row, error) {
	var err error
	if r.before, err = c.near.resident(); err != nil {
		return r, err
	}
	var mu sync.Mutex
	var held []net.Conn
	times := make([]time.Duration, n)
	began := time.Now()
	g := actor.NewGroup(ctx)
	for w := range c.at {
		g.Go(func(ctx context.Context) error {
			for i := w; i < n && ctx.Err() == nil; i += c.at {
				start := time.Now()
				conn, err := open(ctx, i)
				if err != nil {
					return fmt.Errorf("%s, number %d: %w", r.name, i, err)
				}
				times[i] = time.Since(start)
				if conn != nil {
					mu.Lock()
					held = append(held, conn)
					mu.Unlock()
				}
			}
			return ctx.Err()
		})
	}
	err = g.Wait()
	r.took = time.Since(began)
	if err == nil {
		err = actor.Sleep(ctx, c.settle)
	}
	if err == nil {
		r.with, err = c.near.resident()
	}
	for _, conn := range held {
		conn.Close()
	}
	if err != nil {
		return r, err
	}
	slices.Sort(times)
	r.median, r.most = times[len(times)/2], times[len(times)*99/100]
	if err := actor.Sleep(ctx, c.settle); err != nil {
		return r, err
	}
	r.after, err = c.near.resident()
	return r, err
}

var question = bytes.Repeat([]byte{7}, 64)

// from returns the address that a connection comes from.
func from(i int) net.IP { return net.IPv4(127, 0, 0, byte(2+i%sources)) }

// open opens a connection, over which one exchange has gone.
func (c *client) open(ctx context.Context, i int) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from(i)}}
	conn, err := d.DialContext(ctx, "tcp", c.tcp)
	if err != nil {
		return nil, err
	}
	conn.Write(question)
	if _, err := io.ReadFull(conn, make([]byte, len(question))); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// openFlow opens a flow, over which one exchange has gone.
func (c *client) openFlow(ctx context.Context, i int) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: from(i)}}
	conn, err := d.DialContext(ctx, "udp", c.udp)
	if err != nil {
		return nil, err
	}
	for range tries {
		conn.Write(question)
		conn.SetReadDeadline(time.Now().Add(2 * time.Second))
		if _, err = conn.Read(make([]byte, len(question))); !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}
