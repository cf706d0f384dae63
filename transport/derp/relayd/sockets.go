package relayd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/transport/stun"
)

// Times and sizes of the HTTP servers. Those of the main one end with the
// upgrade to DERP (DERP-151).
const (
	httpTimeout    = 30 * time.Second // to read a request, and to write an answer
	debugTimeout   = 5 * time.Minute  // to write a profile
	idleTimeout    = 30 * time.Second // between requests
	maxHeaderBytes = 16 << 10

	httpsPort = 443
)

// Addrs are what a running relay listens to; those it does not have are zero.
type Addrs struct {
	Main, HTTP, STUN, Debug, Metrics netip.AddrPort
}

// LogValue shows those that there are.
func (a Addrs) LogValue() slog.Value {
	var attrs []slog.Attr
	for _, one := range []struct {
		name string
		at   netip.AddrPort
	}{{"relay", a.Main}, {"http", a.HTTP}, {"stun", a.STUN}, {"debug", a.Debug}, {"metrics", a.Metrics}} {
		if one.at.IsValid() {
			attrs = append(attrs, slog.String(one.name, one.at.String()))
		}
	}
	return slog.GroupValue(attrs...)
}

// sockets are everything a relay has opened.
type sockets struct {
	addrs Addrs
	web   []*webServer
	stun  []*stun.Server
	udp   []host.UDPConn // of stun, to close those that never served
}

// open opens all sockets or none.
func (d *Daemon) open(ctx context.Context) (_ *sockets, err error) {
	s := new(sockets)
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	p := d.plan
	if s.addrs.Main, err = s.listenMain(ctx, d); err != nil {
		return nil, err
	}
	if p.httpAddr != "" {
		web := &http.Server{Handler: d.plainHandler(), ReadTimeout: httpTimeout, WriteTimeout: httpTimeout}
		if s.addrs.HTTP, err = s.listenWeb(ctx, d, "http-port", p.httpAddr, web); err != nil {
			return nil, err
		}
	}
	if p.DebugAddr != "" {
		web := &http.Server{Handler: d.debugHandler(), ReadTimeout: httpTimeout, WriteTimeout: debugTimeout}
		if s.addrs.Debug, err = s.listenWeb(ctx, d, "debug-addr", p.DebugAddr, web); err != nil {
			return nil, err
		}
	}
	if p.MetricsAddr != "" {
		web := &http.Server{Handler: d.metricsHandler(), ReadTimeout: httpTimeout, WriteTimeout: httpTimeout}
		if s.addrs.Metrics, err = s.listenWeb(ctx, d, "metrics-addr", p.MetricsAddr, web); err != nil {
			return nil, err
		}
	}
	if p.STUN {
		if err := s.listenSTUN(ctx, d); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// listenMain opens the address of HTTPS, or of HTTP.
func (s *sockets) listenMain(ctx context.Context, d *Daemon) (netip.AddrPort, error) {
	p := d.plan
	ln, err := host.OS{}.ListenTCP(ctx, p.Addr, host.TCPOptions{
		KeepAlive: time.Duration(p.KeepAlive), UserTimeout: time.Duration(p.UserTimeout),
	})
	if err != nil {
		return netip.AddrPort{}, listenError("addr", err)
	}
	at := boundTo(ln)
	ln = limited(ln, p.Limits, &d.accepts)
	if p.tls() {
		ln = tls.NewListener(d.tls.listen(ln), d.tlsConfig())
	}
	s.add(d, ln, &http.Server{Handler: d.mainHandler(), ReadTimeout: httpTimeout, WriteTimeout: httpTimeout, ConnContext: connContext})
	return at, nil
}

// listenWeb opens another address.
func (s *sockets) listenWeb(ctx context.Context, d *Daemon, setting, addr string, web *http.Server) (netip.AddrPort, error) {
	ln, err := host.OS{}.ListenTCP(ctx, addr, host.TCPOptions{UserTimeout: time.Duration(d.plan.UserTimeout)})
	if err != nil {
		return netip.AddrPort{}, listenError(setting, err)
	}
	s.add(d, ln, web)
	return boundTo(ln), nil
}

// add notes an HTTP server that is to be served.
func (s *sockets) add(d *Daemon, ln net.Listener, web *http.Server) {
	web.ErrorLog, web.IdleTimeout, web.MaxHeaderBytes = errorLog(d.log), idleTimeout, maxHeaderBytes
	web.Protocols = new(http.Protocols)
	web.Protocols.SetHTTP1(true)
	s.web = append(s.web, &webServer{steadyListener{ln}, web})
}

// listenSTUN opens the STUN server's socket at the address of the main
// listener: two sockets, one for each family, where that is all addresses
// (DERP-153).
func (s *sockets) listenSTUN(ctx context.Context, d *Daemon) error {
	ip, port := d.plan.listen.Addr(), uint16(d.plan.STUNPort)
	at := []netip.AddrPort{netip.AddrPortFrom(ip, port)}
	if ip == netip.IPv6Unspecified() {
		at = []netip.AddrPort{netip.AddrPortFrom(netip.IPv4Unspecified(), port), at[0]}
	}
	for _, a := range at {
		if s.addrs.STUN.IsValid() { // the port that the system has chosen
			a = netip.AddrPortFrom(a.Addr(), s.addrs.STUN.Port())
		}
		udp, err := host.OS{}.ListenUDPAt(ctx, a)
		switch {
		case len(at) > 1 && (errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL)):
			d.log.Info("STUN without an address family that this host lacks", "addr", a, "err", err)
			continue
		case err != nil:
			return listenError("stun-port", err)
		}
		s.udp = append(s.udp, udp)
		s.stun = append(s.stun, stun.NewServer(udp, d.log))
		s.addrs.STUN = udp.LocalAddr()
	}
	if len(s.stun) == 0 {
		return listenError("stun-port", syscall.EADDRNOTAVAIL)
	}
	return nil
}

// listenError says which setting an address that cannot be had comes from, and
// what to do.
func listenError(setting string, err error) error {
	hint := ""
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		hint = "; another process uses it"
	case errors.Is(err, syscall.EACCES):
		hint = "; ports below 1024 need root or CAP_NET_BIND_SERVICE (setcap or AmbientCapabilities of systemd)"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		hint = "; this machine does not have that address"
	}
	return fmt.Errorf("--%s: %w%s", setting, err, hint)
}

// boundTo returns the address of a TCP listener.
func boundTo(ln net.Listener) netip.AddrPort {
	a := ln.Addr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// stopListening closes what new clients come in by. The other servers stay
// until close, so that a stop can be watched.
func (s *sockets) stopListening() {
	s.web[0].ln.Close()
}

// close closes everything. Connections that were taken over from a server are
// not its any more.
func (s *sockets) close() {
	for _, w := range slices.Backward(s.web) {
		w.web.Close()
		w.ln.Close() // one that never served
	}
	for _, u := range s.udp {
		u.Close()
	}
}

// A webServer is an HTTP server with its listener.
type webServer struct {
	ln  net.Listener
	web *http.Server
}

// serve answers until the server is closed, or its listener, by us.
func (w *webServer) serve(ctx context.Context) error {
	err := w.web.Serve(w.ln)
	if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("relayd: %v: %w", w.ln.Addr(), err)
}
