package localapi

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
)

// A serving is one call of Serve: a listener that accepts while there are few
// connections, and what has come of it.
type serving struct {
	net.Listener
	server   *Server
	ctx      context.Context
	slots    chan struct{}  // one for each connection, taken over by dial or not
	alive    sync.WaitGroup // connections that net/http has
	requests chan struct{}  // one for each request under way
	once     sync.Once
	closed   chan struct{}
}

func (v *serving) httpServer() *http.Server {
	h := &http.Server{
		Handler:           http.HandlerFunc(v.handle),
		Protocols:         new(http.Protocols),
		BaseContext:       func(net.Listener) context.Context { return v.ctx },
		ConnContext:       withCaller,
		ConnState:         v.connState,
		ReadHeaderTimeout: headerTimeout, ReadTimeout: bodyTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(v.server.config.Logger.Handler(), slog.LevelDebug),
	}
	h.Protocols.SetHTTP1(true)
	return h
}

// handle answers one request.
func (v *serving) handle(w http.ResponseWriter, r *http.Request) {
	v.requests <- struct{}{}
	defer func() { <-v.requests }()
	v.server.serveHTTP(w, r)
}

// Accept returns the next connection, which gives its place back when it is
// closed.
func (v *serving) Accept() (net.Conn, error) {
	select {
	case v.slots <- struct{}{}:
	case <-v.closed:
		return nil, net.ErrClosed
	}
	c, err := v.Listener.Accept()
	if err != nil {
		<-v.slots
		return nil, err
	}
	v.server.count.connections.Add(1)
	v.alive.Add(1)
	return &boundedConn{Conn: c, leave: sync.OnceFunc(func() { <-v.slots })}, nil
}

// Close ends Accept.
func (v *serving) Close() error {
	v.once.Do(func() { close(v.closed) })
	return v.Listener.Close()
}

// connState notes when net/http has done with a connection.
func (v *serving) connState(_ net.Conn, state http.ConnState) {
	if state == http.StateClosed || state == http.StateHijacked {
		v.alive.Done()
	}
}

// await waits for connections and requests, whose contexts have ended.
func (v *serving) await() {
	v.alive.Wait()
	for range cap(v.requests) {
		v.requests <- struct{}{}
	}
}

// A boundedConn has a place among the connections of a serving.
type boundedConn struct {
	net.Conn
	leave func()
}

// Close closes the connection and gives its place back.
func (c *boundedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// CloseWrite ends what is sent.
func (c *boundedConn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return errors.ErrUnsupported
}
