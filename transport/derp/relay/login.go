package relay

import (
	"context"
	"crypto/ecdh"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

// Bounds of logins.
const (
	loginTimeout  = 10 * time.Second // for each half of the login; DERP-22
	verifyTimeout = 15 * time.Second // for all of Options.Verify, whose checks have limits of 5 s; DERP-73, DERP-74

	maxClientInfo = 256 << 10 // bytes; DERP-08
	maxLoginBytes = 16 << 20  // of all ClientInfos that are being received
)

// A Candidate is a client that has shown that it holds a key, and now wants to
// be admitted.
type Candidate struct {
	Key     key.NodePublic
	Addr    netip.AddrPort // invalid when unknown
	Prober  bool           // says it is a monitoring probe
	AppName string         // what the client calls itself; at most 256 KiB of anything
}

// login is the server's part of the login up to the client's key (DERP-22).
func (s *Server) login(ctx context.Context, in Incoming) (*client, error) {
	in.Conn.SetDeadline(time.Now().Add(loginTimeout))
	if _, err := in.Conn.Write(derp.AppendServerKey(in.Response, s.public)); err != nil {
		return nil, loginError(writeError(fmt.Errorf("relay: write server key: %w", err)))
	}
	in.Conn.SetDeadline(time.Now().Add(loginTimeout))
	c := s.newClient(in)
	public, info, err := s.readClientInfo(&c.read.in)
	if err != nil {
		return nil, loginError(err)
	}
	c.key, c.prober, c.mesh = public, info.IsProber, s.meshKey.Equal(info.MeshKey)
	if err := s.admits(ctx, c, info.AppName); err != nil {
		return nil, err
	}
	in.Conn.SetDeadline(time.Time{})
	return c, nil
}

// loginError tells a login that took too long from other failures.
func loginError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return because(ClosedLoginTime, err)
	}
	return err
}

func (s *Server) readClientInfo(r *reader) (k key.NodePublic, info derp.ClientInfo, err error) {
	t, n, err := r.header()
	if err != nil {
		return k, info, err
	}
	if t != derp.FrameClientInfo || n > maxClientInfo {
		return k, info, because(ClosedBadLogin, fmt.Errorf("relay: first frame is %v of %d bytes, want %v", t, n, derp.FrameClientInfo))
	}
	defer s.loginBytes.Add(-int64(n))
	if s.loginBytes.Add(int64(n)) > maxLoginBytes {
		return k, info, because(ClosedLoginFlood, errors.New("relay: too much is being received in logins"))
	}
	b := make([]byte, n)
	if err := r.full(b); err != nil {
		return k, info, err
	}
	if k, info, err = derp.ParseClientInfo(s.private, b); err == nil {
		err = s.checkKey(k)
	}
	if err != nil {
		return k, info, because(ClosedBadLogin, err)
	}
	return k, info, nil
}

// checkKey rejects the keys with which everyone agrees on the same secret, so
// that to hold one proves nothing (DERP-05, RFC 7748 section 6.1).
func (s *Server) checkKey(k key.NodePublic) error {
	ours, theirs := s.private.Raw(), k.Raw()
	private, err := ecdh.X25519().NewPrivateKey(ours[:])
	if err != nil {
		return fmt.Errorf("relay: own key: %w", err)
	}
	public, err := ecdh.X25519().NewPublicKey(theirs[:])
	if err != nil {
		return fmt.Errorf("relay: key of ClientInfo: %w", err)
	}
	if _, err := private.ECDH(public); err != nil {
		return errors.New("relay: ClientInfo with a low-order key")
	}
	return nil
}

// admits asks whether a client may stay; mesh peers always may (DERP-86).
func (s *Server) admits(ctx context.Context, c *client, appName string) error {
	if s.verify == nil || c.mesh {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	err := s.verify(ctx, Candidate{Key: c.key, Addr: c.remote, Prober: c.prober, AppName: appName})
	if err != nil {
		return because(ClosedNotAdmitted, fmt.Errorf("relay: client %s is not admitted: %w", c.key.Short(), err))
	}
	return nil
}
