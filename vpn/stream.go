package vpn

import (
	"errors"
	"io"
)

// A Stream is the byte stream between manager and tunnel: a socket, or a pair of
// pipes by way of Pair (VPN-01). Close must wake what waits in Read and Write.
type Stream interface {
	io.ReadWriteCloser

	// CloseWrite tells the peer that nothing follows.
	CloseWrite() error
}

// Pair makes a stream of one that is read and one that is written, which may be
// the same.
func Pair(r io.ReadCloser, w io.WriteCloser) Stream { return &pair{ReadCloser: r, w: w} }

// A pair joins two half streams.
type pair struct {
	io.ReadCloser
	w io.WriteCloser
}

func (p *pair) Write(b []byte) (int, error) { return p.w.Write(b) }
func (p *pair) CloseWrite() error           { return p.w.Close() }
func (p *pair) Close() error                { return errors.Join(p.w.Close(), p.ReadCloser.Close()) }
