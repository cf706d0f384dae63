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
	others   *crowd         // of them, those of users who may only look
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
		WriteTimeout:                 v.server.config.writeTimeout, // of what a timedWriter does not write
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
	v.server.serveHTTP(v.server.timed(w), r)
}

// Accept returns the next connection, which gives its place back when it is
// closed.
func (v *serving) Accept() (net.Conn, error) {
	for {
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
		if b := v.admit(c); b != nil {
			v.alive.Add(1)
			return b, nil
		}
		v.server.count.crowded.Add(1)
		c.Close()
		<-v.slots
	}
}

// admit gives a connection its place; nil if its user has too many.
func (v *serving) admit(c net.Conn) *boundedConn {
	who := v.server.callerOf(c)
	leave := func() { <-v.slots }
	if !v.server.trusts(who) {
		if !v.others.enter(who.uid) {
			return nil
		}
		leave = func() { v.others.leave(who.uid); <-v.slots }
	}
	return &boundedConn{Conn: c, caller: who, leave: sync.OnceFunc(leave)}
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
	caller caller
	leave  func()
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

// awaitGone waits until the client has closed the connection altogether, where that
// can be told; see the function of that name.
func (c *boundedConn) awaitGone() bool {
	u, ok := c.Conn.(*net.UnixConn)
	return ok && awaitGone(u)
}
