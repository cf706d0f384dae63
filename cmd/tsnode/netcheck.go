package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/netcheck"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/node"
	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/portmap"
)

// derpMapPath is where a control server shows its DERP map to anyone.
const derpMapPath = "/derpmap/default"

const (
	maxDERPMap     = 4 << 20 // bytes
	derpMapTimeout = 10 * time.Second
	thoroughly     = 10 * time.Second // a report and the port mapper's probes
)

// netcheckOptions are the flags of tsnode netcheck.
type netcheckOptions struct {
	socketFlags
	derpMap, loginServer string
	every                time.Duration
	port                 uint16
	serverNamed          bool // by a flag
	verbose              bool
}

func newNetcheck() *cobra.Command {
	var o netcheckOptions
	cmd := &cobra.Command{
		Use:   "netcheck",
		Short: "Report what the network around allows, and how far the relays are",
		Long: `Report what the network around allows: whether UDP works, how this machine's
addresses look from outside, how its NAT maps them, which port mapping protocols
the router speaks, whether a captive portal is in the way, and how far each
relay is.

The relays are those of the running node's tailnet, if one is asked by --socket or
TS_SOCKET or is found; else those of the control server's public DERP map, or of
--derp-map: a file, a URL, or - for standard input. Nothing is sent anywhere else.`,
		Example: `  tsnode netcheck
  tsnode netcheck --login-server https://headscale.example.org --derp-map derp.json
  tsnode netcheck --every 10s --json`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.serverNamed = cmd.Flags().Changed("login-server")
			return o.run(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.derpMap, "derp-map", "", "DERP map in JSON: a file, a URL, or - for standard input")
	f.StringVar(&o.loginServer, "login-server", node.DefaultControlURL, "URL of the control server whose map is used, when no node is asked")
	f.DurationVar(&o.every, "every", 0, "report again in this interval until interrupted")
	f.Uint16Var(&o.port, "port", 0, "UDP port to probe from (default: any)")
	o.add(cmd, true)
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log more")
	return cmd
}

func (o *netcheckOptions) run(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error {
	if o.every < 0 {
		return &usageError{fmt.Errorf("--every %v: want a duration such as 10s", o.every)}
	}
	log := newQuietLogger(stderr)
	if o.verbose {
		log = newLogger(stderr, true)
	}
	dm, err := o.readMap(ctx, stdin)
	if err != nil {
		return err
	}
	err = actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		mapper := portmap.New(portmap.Config{Network: host.OS{}, Logger: log})
		g.Go(func(context.Context) error { return ended(mapper.Serve(ctx)) })
		checker := netcheck.NewStandalone(o.checks(log, mapper), o.port)
		for {
			if err := o.report(ctx, checker, dm, stdout); err != nil || o.every == 0 {
				return err
			}
			if err := actor.Sleep(ctx, o.every); err != nil {
				return ended(err)
			}
		}
	})
	return ended(err)
}

// checks says what a report is made with.
func (o *netcheckOptions) checks(log *slog.Logger, mapper *portmap.Client) netcheck.Config {
	dialer := &derp.Dialer{Network: host.OS{}, Proxy: http.ProxyFromEnvironment}
	return netcheck.Config{
		Network: host.OS{}, Logger: log,
		DialTLS: func(ctx context.Context, r *netmap.Region) (net.Conn, *netmap.DERPNode, error) {
			c, err := dialer.DialTLS(ctx, r)
			if err != nil {
				return nil, nil, err
			}
			return c, c.Node, nil
		},
		PortMap: func(ctx context.Context) (netcheck.PortMapping, error) {
			found, err := mapper.Probe(ctx)
			return netcheck.PortMapping(found), err
		},
	}
}

// report makes and prints one report.
func (o *netcheckOptions) report(ctx context.Context, c *netcheck.Standalone, dm *netmap.DERPMap, w io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, thoroughly)
	defer cancel()
	r, err := c.Report(ctx, dm, netcheck.Options{Full: true, Thorough: true})
	switch {
	case err != nil:
		return err
	case o.json:
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	return r.WriteText(w, dm)
}

// readMap returns the DERP map to probe.
func (o *netcheckOptions) readMap(ctx context.Context, stdin io.Reader) (*netmap.DERPMap, error) {
	from := o.derpMap
	if from == "" && !o.serverNamed {
		if c, err := o.client(); err == nil {
			return c.DERPMap(ctx)
		}
	}
	if from == "" {
		from = strings.TrimRight(o.loginServer, "/") + derpMapPath
	}
	dm, err := readDERPMap(ctx, from, stdin)
	if err != nil {
		return nil, fmt.Errorf("%w. Give one with --derp-map FILE", err)
	}
	return dm, nil
}

// readDERPMap reads a DERP map from a file, a URL, or standard input for "-".
func readDERPMap(ctx context.Context, from string, stdin io.Reader) (*netmap.DERPMap, error) {
	body, err := readFrom(ctx, from, stdin)
	if err != nil {
		return nil, fmt.Errorf("DERP map: %w", err)
	}
	dm := new(netmap.DERPMap)
	if err := json.Unmarshal(body, dm); err != nil {
		return nil, fmt.Errorf("DERP map of %s: %w", from, err)
	}
	if len(dm.Regions) == 0 {
		return nil, fmt.Errorf("DERP map of %s: it has no regions", from)
	}
	return dm, nil
}

// readFrom reads a file, a URL, or standard input for "-".
func readFrom(ctx context.Context, from string, stdin io.Reader) ([]byte, error) {
	switch {
	case from == "-":
		return readLimited(stdin)
	case strings.HasPrefix(from, "http://"), strings.HasPrefix(from, "https://"):
		return fetch(ctx, from)
	}
	f, err := os.Open(from)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readLimited(f)
}

func fetch(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, derpMapTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: HTTP status %s", url, resp.Status)
	}
	return readLimited(resp.Body)
}

func readLimited(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxDERPMap+1))
	if err == nil && len(b) > maxDERPMap {
		err = errors.New("longer than 4 MiB")
	}
	return b, err
}
