package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/localapi"
	"github.com/seed94491740/tsnode/proxy"
)

// ncOptions are the flags of tsnode nc.
type ncOptions struct {
	socketFlags
	udp     bool
	timeout time.Duration
}

func newNC() *cobra.Command {
	var o ncOptions
	cmd := &cobra.Command{
		Use:   "nc [flags] HOST PORT",
		Short: "Join standard input and output with a connection on the tailnet",
		Long: `Connect to a port of a node of the tailnet, by name or address, and join standard
input and output with the connection. The end of standard input is passed on; the
command ends when the other side has no more to say.

With --udp each piece that is read at once is a datagram, and the command ends when
standard input has ended and nothing has come for as long as --timeout says.

` + asksRunning,
		Example: `  ssh -o ProxyCommand='tsnode nc %h %p' user@web
  printf 'GET / HTTP/1.0\r\n\r\n' | tsnode nc web 80
  echo ping | tsnode nc --udp 100.64.0.7 9999`,
		Args: usageArgs(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.timeout <= 0 {
				return &usageError{fmt.Errorf("--timeout %v: want a duration such as 5s", o.timeout)}
			}
			return o.run(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout(), net.JoinHostPort(args[0], args[1]))
		},
	}
	f := cmd.Flags()
	o.add(cmd, false)
	f.BoolVarP(&o.udp, "udp", "u", false, "UDP")
	f.DurationVar(&o.timeout, "timeout", 5*time.Second, "with --udp: how long to wait for answers after the end of the input")
	return cmd
}

func (o *ncOptions) run(ctx context.Context, in io.Reader, out io.Writer, address string) error {
	client, err := o.client()
	if err != nil {
		return err
	}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		return dialThrough(ctx, client, network, address)
	}
	if !o.udp {
		return ended(proxy.Stdio(ctx, dial, address, in, out))
	}
	c, err := dial(ctx, "udp", address)
	if err != nil {
		return err
	}
	return o.joinUDP(ctx, c, in, out)
}

// dialThrough connects by way of the node, or past it to what is not on the
// tailnet.
func dialThrough(ctx context.Context, client *localapi.Client, network, address string) (net.Conn, error) {
	c, err := client.Dial(ctx, network, address)
	var outside *localapi.OutsideError
	if errors.As(err, &outside) {
		var d net.Dialer
		return d.DialContext(ctx, network, outside.Addr.String())
	}
	return c, err
}

// errNodeGone says that the node has closed a connection.
var errNodeGone = errors.New("the node has closed the connection")

// joinUDP copies both ways until the input has ended, and answers have. A read of
// the input that nobody can interrupt then goes on by itself.
func (o *ncOptions) joinUDP(ctx context.Context, c net.Conn, in io.Reader, out io.Writer) error {
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		defer c.Close() // ends receiveAll
		heard, sent := make(chan struct{}, 1), make(chan error, 1)
		g.Go(func(context.Context) error { return receiveAll(c, out, heard) })
		go sendDatagrams(ctx, c, in, sent)
		select {
		case err := <-sent:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return ended(ctx.Err())
		}
		timer := time.NewTimer(o.timeout)
		defer timer.Stop()
		for {
			select {
			case <-heard:
				timer.Reset(o.timeout)
			case <-timer.C:
				return nil
			case <-ctx.Done():
				return ended(ctx.Err())
			}
		}
	})
}

// sendDatagrams sends each piece that is read, and says how that has ended.
func sendDatagrams(ctx context.Context, c net.Conn, in io.Reader, sent chan<- error) {
	sent <- actor.Guard(ctx, func(context.Context) error {
		_, err := io.Copy(c, in)
		return err
	})
}

// receiveAll prints each datagram, and says so, until c is closed.
func receiveAll(c net.Conn, out io.Writer, heard chan<- struct{}) error {
	for buf := make([]byte, 1<<16); ; {
		n, err := c.Read(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case errors.Is(err, io.EOF):
			return errNodeGone
		case err != nil:
			return err
		}
		out.Write(buf[:n])
		select {
		case heard <- struct{}{}:
		default:
		}
	}
}
