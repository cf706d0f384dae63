package socks

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/seed94491740/tsnode/internal/carry"
)

// A reply tells a client how its request went (RFC 1928 section 6).
type reply byte

// Replies (RFC 1928 section 6), and what they stand for here (SVC-163).
const (
	replySuccess        reply = 0
	replyFailure        reply = 1
	replyNotAllowed     reply = 2 // the policy of the tailnet, or ours, refuses
	replyNoNetwork      reply = 3 // no route
	replyNoHost         reply = 4 // name not found, or no answer
	replyRefused        reply = 5
	replyNoCommand      reply = 7
	replyBadAddressType reply = 8
)

// ErrNotAllowed says that a client may not reach what it asks for.
var ErrNotAllowed = errors.New("not allowed by this proxy")

// replyOf returns the reply that tells of an error of Dial (SVC-163).
func replyOf(err error) reply {
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.Is(err, ErrNotAllowed), carry.IsErrno(err, syscall.EACCES), carry.IsErrno(err, syscall.EPERM):
		return replyNotAllowed
	case carry.IsErrno(err, syscall.ENETUNREACH):
		return replyNoNetwork
	case carry.IsErrno(err, syscall.ECONNREFUSED):
		return replyRefused
	case carry.IsErrno(err, syscall.EHOSTUNREACH), errors.As(err, &dns), errors.Is(err, os.ErrDeadlineExceeded),
		errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return replyNoHost
	}
	return replyFailure
}

// message returns the reply as it is sent, with the address that was bound.
func (r reply) message(bound netip.AddrPort) []byte {
	return appendAddress([]byte{version, byte(r), 0}, bound)
}

// EqualSecret reports whether two secrets are equal, in a time that tells nothing
// of either.
func EqualSecret(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}
