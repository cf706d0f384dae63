package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/transport/derp/relayd"
)

// relayOptions are the flags of tsnode relay.
type relayOptions struct {
	shown    relayd.Config // what the flags say; read adds the file
	file     string
	printMap bool
	verbose  bool
}

func newRelay() *cobra.Command {
	o := relayOptions{shown: relayd.DefaultConfig()}
	cmd := &cobra.Command{
		Use:   "relay",
		Short: "Run a DERP relay with a STUN server",
		Long: `Run a DERP relay with a STUN server, for the nodes of one or more tailnets, until
interrupted. Clients reach it on TCP 443 and UDP 3478; TCP 80 answers ACME
challenges and the captive-portal check.

--config names a HuJSON file with the flags' names as keys; flags beat the file:
  {"hostname": "derp1.example.org", "mesh-with": ["derp2.example.org"]}

SIGHUP reads the file of --rate-config, manual certificates and the log level
again; all else needs a restart. SIGTERM and SIGINT tell the clients to come back
and end the relay within --drain; a second signal ends it at once.

The key file of a derper can be used as it is.`,
		Example: `  # a certificate from Let's Encrypt, clients of this machine's tailnet only
  tsnode relay --hostname derp1.example.org --verify-clients

  # no domain: a self-signed certificate that the DERP map pins
  tsnode relay --hostname 192.0.2.1 --certmode manual
  tsnode relay --hostname 192.0.2.1 --certmode manual --print-map

  # two relays of one region
  openssl rand -hex 32 >mesh.key   # the same file on both
  tsnode relay --hostname derp1.example.org --mesh-psk-file mesh.key --mesh-with derp2.example.org

  # plain HTTP behind a proxy that passes upgrades on
  tsnode relay --addr 127.0.0.1:8080 --certmode none

  # on a developer's machine: plain HTTP on port 3340, a new key on each start
  tsnode relay --dev`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), cmd.Flags(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.file, "config", "", "HuJSON file with these flags' names as keys; flags beat it")
	addRelayFlags(f, &o.shown)
	f.BoolVar(&o.printMap, "print-map", false, "print the DERP map of this relay alone, and end")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log more: --log-level debug")
	cmd.AddCommand(newRelayProbe())
	return cmd
}

// run relays until ctx ends.
func (o *relayOptions) run(ctx context.Context, f *pflag.FlagSet, stdout, stderr io.Writer) error {
	c, err := o.read(f)
	if err != nil {
		return &usageError{err}
	}
	level := new(slog.LevelVar)
	level.Set(o.level(c))
	c.Logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	if f.Changed("acme-eab-key") && !strings.HasPrefix(c.ACMEEABKey, "file:") {
		c.Logger.Warn("the key of --acme-eab-key is visible to other users of this machine: use file:PATH")
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP) // from now on: one that comes early must not end the process
	defer signal.Stop(hup)
	d, err := relayd.New(c)
	if err != nil {
		return relayError(err)
	}
	if o.printMap {
		fmt.Fprintln(stderr, `tsnode: the value of "derpMap" in a tailnet's policy; relays of one region share a mesh key`)
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		return e.Encode(d.Map())
	}
	r := &relayReloader{options: o, flags: f, relay: d, level: level, log: c.Logger, hup: hup}
	err = actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		g.Go(r.Serve)
		return d.Serve(ctx)
	})
	return relayError(ended(err))
}

// level is what --verbose and --log-level say together.
func (o *relayOptions) level(c relayd.Config) slog.Level {
	if o.verbose {
		return slog.LevelDebug
	}
	return c.LogLevel
}

// relayError marks what is wrong with the configuration as a usage error.
func relayError(err error) error {
	var bad *relayd.ConfigError
	if errors.As(err, &bad) {
		return &usageError{err}
	}
	return err
}

// read returns the defaults, changed by the configuration file, changed by the
// flags that were given.
func (o *relayOptions) read(f *pflag.FlagSet) (relayd.Config, error) {
	c := relayd.DefaultConfig()
	if o.file != "" {
		if err := relayd.ReadConfig(o.file, &c); err != nil {
			return c, fmt.Errorf("--config: %w", err)
		}
	}
	into := pflag.NewFlagSet("relay", pflag.ContinueOnError)
	addRelayFlags(into, &c)
	var err error
	f.Visit(func(given *pflag.Flag) {
		if to := into.Lookup(given.Name); to != nil {
			err = errors.Join(err, copyFlag(to.Value, given.Value))
		}
	})
	return c, err
}

// copyFlag gives one flag the value of another of its kind.
func copyFlag(to, from pflag.Value) error {
	if list, ok := from.(pflag.SliceValue); ok {
		return to.(pflag.SliceValue).Replace(list.GetSlice())
	}
	return to.Set(from.String())
}

// A relayReloader reads again what may change while the relay runs, on SIGHUP.
type relayReloader struct {
	options *relayOptions
	flags   *pflag.FlagSet
	relay   *relayd.Daemon
	level   *slog.LevelVar
	log     *slog.Logger
	hup     chan os.Signal
}

// Serve waits for signals until ctx ends.
func (r *relayReloader) Serve(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.hup:
			r.reload()
		}
	}
}

// reload keeps what it cannot read, and says so.
func (r *relayReloader) reload() {
	c, err := r.options.read(r.flags)
	if err == nil {
		r.level.Set(r.options.level(c))
	}
	if err := errors.Join(err, r.relay.Reload()); err != nil {
		r.log.Error("reload failed: what could not be read stays as it was", "err", err)
		return
	}
	r.log.Info("reloaded")
}
