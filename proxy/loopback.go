package proxy

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/internal/carry"
)

// loopbackName is where a forward of this machine listens unless its bind says
// otherwise: all addresses of the loopback interface, as ssh does.
const loopbackName = "localhost"

// listenLoopback listens on 127.0.0.1 and, where this machine has it, on ::1. That one
// of them has the port for somebody else is an error: half of those who ask for
// localhost would reach that one. A port that was chosen may be so on 127.0.0.1 alone.
func (c *Config) listenLoopback(ctx context.Context, port string) (net.Listener, error) {
	chosen := port == "0"
	first, err := c.Host.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		return nil, err
	}
	_, port, _ = net.SplitHostPort(first.Addr().String())
	second, err := c.Host.Listen(ctx, "tcp", net.JoinHostPort("::1", port))
	switch {
	case err == nil:
		return newPairListener(first, second), nil
	case carry.IsErrno(err, syscall.EADDRINUSE) && !chosen:
		first.Close()
		return nil, err
	}
	return first, nil // there is no IPv6
}

// A pairListener accepts the connections of two listeners. Its address is that of the
// first.
type pairListener struct {
	net.Listener
	second net.Listener

	accepted     chan accepted
	closed       chan struct{}
	start, close sync.Once
	group        *actor.Group // ends with Close
}

// An accepted is what Accept of one of the listeners has returned.
type accepted struct {
	conn net.Conn
	err  error
}

func newPairListener(first, second net.Listener) *pairListener {
	return &pairListener{
		Listener: first, second: second,
		accepted: make(chan accepted), closed: make(chan struct{}), group: actor.NewGroup(context.Background()),
	}
}

// Accept returns the next connection of either listener.
func (p *pairListener) Accept() (net.Conn, error) {
	p.start.Do(func() {
		for _, ln := range []net.Listener{p.Listener, p.second} {
			p.group.Go(func(context.Context) error { return p.take(ln) })
		}
	})
	select {
	case a := <-p.accepted:
		return a.conn, a.err
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// take hands on what one listener accepts.
func (p *pairListener) take(ln net.Listener) error {
	for {
		c, err := ln.Accept()
		select {
		case p.accepted <- accepted{c, err}:
		case <-p.closed:
			if err == nil {
				c.Close()
			}
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
	}
}

// Close closes both, and waits until nothing is accepted any more.
func (p *pairListener) Close() error {
	err := net.ErrClosed
	p.close.Do(func() {
		close(p.closed)
		err = errors.Join(p.Listener.Close(), p.second.Close())
	})
	return errors.Join(err, p.group.Wait())
}
