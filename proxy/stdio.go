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
// all, or ctx ends. A read of in, or a write of out, that nobody can interrupt then goes
// on by itself.
func Stdio(ctx context.Context, dial Dial, address string, in io.Reader, out io.Writer) error {
	dctx, cancel := context.WithTimeout(ctx, carry.DialTimeout)
	defer cancel()
	c, err := dial(dctx, "tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	received := make(chan error, 1)
	go sendAll(ctx, c, in) // neither may be waited for: a pipe or a terminal can block for ever
	go receiveAll(ctx, out, c, received)
	select {
	case err := <-received:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sendAll copies in to c, and then ends writing.
func sendAll(ctx context.Context, c net.Conn, in io.Reader) {
	if err := copyAll(ctx, c, in); err != nil {
		c.Close()
		return
	}
	carry.CloseWrite(c)
}

// receiveAll copies c to out, and says how that has ended.
func receiveAll(ctx context.Context, out io.Writer, c net.Conn, received chan<- error) {
	received <- copyAll(ctx, out, c)
}

// copyAll copies until from ends.
func copyAll(ctx context.Context, to io.Writer, from io.Reader) error {
	return actor.Guard(ctx, func(context.Context) error {
		_, err := io.Copy(to, from)
		return err
	})
}
