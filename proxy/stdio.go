package proxy

import (
	"context"
	"io"
	"net"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/internal/carry"
)

// Stdio connects to an address and carries standard input and output to it, as
// ssh's -W: the end of in ends writing, and it returns when the other side has said
// all. A read of in that nobody can interrupt then goes on by itself.
func Stdio(ctx context.Context, dial Dial, address string, in io.Reader, out io.Writer) error {
	dctx, cancel := context.WithTimeout(ctx, carry.DialTimeout)
	defer cancel()
	c, err := dial(dctx, "tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	go sendAll(ctx, c, in)
	if _, err = io.Copy(out, c); ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// sendAll copies in to c, and then ends writing.
func sendAll(ctx context.Context, c net.Conn, in io.Reader) {
	err := actor.Guard(ctx, func(context.Context) error {
		_, err := io.Copy(c, in)
		return err
	})
	if h, ok := c.(interface{ CloseWrite() error }); ok && err == nil {
		h.CloseWrite()
		return
	}
	c.Close()
}
