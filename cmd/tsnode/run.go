package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/internal/settings"
)

func newRun() *cobra.Command {
	var c configuration
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run a node in the foreground: forwards, proxies, health",
		Long: `Run a node in the foreground until it is interrupted.

-L listens on this machine and forwards into the tailnet; -R listens on the
tailnet and forwards to a host this machine reaches; -D is a SOCKS5 proxy, -W
joins standard input and output with one connection: all as in ssh, and all but -W as
often as you like. Without --state-dir the node is new on every start.

The auth key comes from TS_AUTHKEY, from a file (--auth-key file:PATH) or from
standard input (--auth-key -); without one a login URL is printed.

With -W nothing else is forwarded, and a connection that cannot be made ends the
process, with 1.

All flags but -W can be said in a configuration file, by their names, and in the
environment, by the names that the usual container image has or TSNODE_NAME;
doc/configuration.md lists them. The environment beats the file, and flags beat
both. SIGHUP reads the file again; without a file it ends the node as SIGTERM does.
'tsnode forward' adds and removes forwards while the node runs.

SIGTERM and SIGINT end the node: it listens no more, lets open connections go on
for --drain, leaves the tailnet if it is ephemeral, and exits with 0. A second
signal ends it at once, with 1.`,
		Example: `  # reach port 80 of the node "web" as http://127.0.0.1:8080
  TS_AUTHKEY=… tsnode run --state-dir ~/.tsnode -L 8080:web:80

  # show a local service to the tailnet as http://myapp
  tsnode run --auth-key file:/run/secrets/authkey --hostname myapp -R 80:localhost:3000

  # a proxy for a browser, SOCKS5 and HTTP on one port
  tsnode run --state-dir ~/.tsnode -D 1080 --http-proxy 1080

  # route to a network that this machine reaches, once an administrator approves
  tsnode run --auth-key file:/run/secrets/authkey --advertise-routes 192.168.1.0/24

  # all of it in a file, read again on SIGHUP
  tsnode run --config /etc/tsnode.hujson`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runForeground(cmd.Context(), &c, stdio{cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()})
		},
	}
	cmd.Flags().SortFlags = false
	c.add(cmd.Flags())
	return cmd
}

// stdio is the standard input, output and error of a command.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// runForeground runs the node of a configuration until ctx ends.
func runForeground(ctx context.Context, c *configuration, std stdio) error {
	ctx, hup, stop := c.hangups(ctx)
	defer stop()
	s, err := c.read()
	if err != nil {
		return c.tellUnread(std.err, err)
	}
	f := newForeground(c, s, std)
	f.hup = hup
	err = f.begin(ctx)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil // asked to stop
	}
	return f.tellEnd(err)
}

// begin makes the node that the settings describe, and runs it until ctx ends.
func (f *foreground) begin(ctx context.Context) error {
	s := f.settings.Get()
	specs, err := forwardsOf(s)
	if err != nil {
		return err
	}
	n, err := newNode(ctx, s, f.std.in, at(slog.LevelWarn, f.people))
	if err != nil {
		return err
	}
	f.warn(s)
	n.Logger = f.log
	f.node = n
	if err := f.openDevice(s); err != nil {
		return err
	}
	defer f.device.close()
	f.secrets.know(n.AuthKey)
	return f.run(ctx, specs)
}

// warn tells what of settings should be looked at.
func (f *foreground) warn(s *settings.Settings) {
	for _, w := range s.Warnings {
		fmt.Fprintln(at(slog.LevelWarn, f.people), "tsnode: warning:", w)
	}
}

// newForeground returns a node in the foreground, still without the node.
func newForeground(c *configuration, s *settings.Settings, std stdio) *foreground {
	f := &foreground{config: c, std: std, console: newConsole(std.err), ring: new(logRing), level: new(slog.LevelVar), running: make(chan struct{}, 1)}
	f.settings = actor.NewCell(s)
	f.level.Set(logLevel(s.Verbose))
	f.log = slog.New(newHandler(io.MultiWriter(f.ring, f.console), s.LogFormat, f.level))
	f.people = io.MultiWriter(f.ring, f.console) // who has read a line finds it in a bug report
	if s.LogFormat == settings.JSON {
		f.people = lineLog{log: f.log}
		f.console.terminal = false
	}
	return f
}

// exitsAlone reports whether nobody watches, who would start the process again
// faster than is good for the control server.
func (f *foreground) exitsAlone() bool {
	file, ok := f.std.err.(*os.File)
	return !ok || !isTerminal(file)
}
