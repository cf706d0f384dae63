package socks

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/internal/carry"
)

const (
	// handshakeTimeout bounds all that a client says before its data (SVC-166).
	handshakeTimeout = 15 * time.Second

	// RefusalPause is how long a wrong password has to wait for its refusal, so that
	// nobody guesses fast.
	RefusalPause = time.Second
)

// A Server serves clients of SOCKS5.
type Server struct {
	// Dial connects for a client, by the network tcp or udp. user is the name that
	// the client gave, if any; where Authenticate is nil nobody has checked it. The
	// reply tells by errors of package syscall, and ErrNotAllowed, why it cannot.
	Dial func(ctx context.Context, user, network, address string) (net.Conn, error)

	// Authenticate reports whether a password is right; nil lets everybody in.
	Authenticate func(user, password string) bool

	// ListenPacket binds a UDP socket for a client, a *net.UDPConn; nil refuses UDP.
	ListenPacket func(ctx context.Context, network, address string) (net.PacketConn, error)

	Limit   *carry.Limit // of the flows of datagrams
	Traffic *carry.Traffic
}

// ServeConn serves one client until both sides have ended, or ctx has, and closes
// c. The error tells why it could not.
func (s *Server) ServeConn(ctx context.Context, c net.Conn) error {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	c.SetDeadline(time.Now().Add(handshakeTimeout))
	user, err := s.greet(ctx, c)
	if err != nil {
		return fmt.Errorf("SOCKS5 client: %w", err)
	}
	q, err := readRequest(c)
	c.SetDeadline(time.Time{})
	switch {
	case errors.Is(err, errAddressType):
		return s.refuse(c, replyBadAddressType, err)
	case errors.Is(err, errName):
		return s.refuse(c, replyFailure, err)
	case err != nil:
		return fmt.Errorf("SOCKS5 request: %w", err)
	case q.command == commandConnect:
		return s.connect(ctx, c, user, q.to)
	case q.command == commandUDP && s.ListenPacket != nil:
		return s.associate(ctx, c, user, q.to)
	}
	return s.refuse(c, replyNoCommand, fmt.Errorf("SOCKS5 command %d is not served", q.command))
}

// greet agrees with a client on a method, and returns its user name.
func (s *Server) greet(ctx context.Context, c net.Conn) (user string, err error) {
	methods, err := readGreeting(c)
	if err != nil {
		return "", err
	}
	switch {
	case slices.Contains(methods, methodPassword): // also to learn the name, if nobody need have one
		if _, err := c.Write([]byte{version, methodPassword}); err != nil {
			return "", err
		}
		return s.login(ctx, c)
	case slices.Contains(methods, methodNone) && s.Authenticate == nil:
		_, err := c.Write([]byte{version, methodNone})
		return "", err
	}
	c.Write([]byte{version, noMethod})
	if s.Authenticate != nil {
		return "", errors.New("offers no user name and password")
	}
	return "", fmt.Errorf("offers methods %v: want one without authentication", methods)
}

// login checks a client's password.
func (s *Server) login(ctx context.Context, c net.Conn) (user string, err error) {
	user, password, err := readPassword(c)
	if err != nil {
		return "", err
	}
	if s.Authenticate != nil && !s.Authenticate(user, password) {
		actor.Sleep(ctx, RefusalPause)
		c.Write([]byte{authVersion, authFailure})
		return "", errors.New("wrong user name or password")
	}
	_, err = c.Write([]byte{authVersion, authSuccess})
	return user, err
}

// refuse sends a reply that says no, and why.
func (s *Server) refuse(c net.Conn, r reply, err error) error {
	c.SetDeadline(time.Now().Add(handshakeTimeout))
	c.Write(r.message(netip.AddrPort{}))
	return err
}

// connect makes a connection for a client and carries what goes both ways.
func (s *Server) connect(ctx context.Context, c net.Conn, user string, to address) error {
	dctx, cancel := context.WithTimeout(ctx, carry.DialTimeout)
	made, err := s.Dial(dctx, user, "tcp", to.String())
	cancel()
	if err != nil {
		return s.refuse(c, replyOf(err), err)
	}
	if _, err := c.Write(replySuccess.message(carry.AddrPortOf(made.LocalAddr()))); err != nil {
		made.Close()
		return err
	}
	for _, end := range []net.Conn{c, made} { // in place of an idle timeout (SVC-170)
		if k, ok := end.(interface{ SetKeepAlive(on bool) error }); ok {
			k.SetKeepAlive(true)
		}
	}
	carry.Pipe(ctx, carry.Unwrap(c), made, s.Traffic) // how it ends is for both ends to know
	return nil
}
