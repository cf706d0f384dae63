package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed94491740/tsnode/transport/derp/probe"
	"github.com/seed94491740/tsnode/transport/derp/relayd"
)

// relayProbeOptions are the flags of tsnode relay probe.
type relayProbeOptions struct {
	config        probe.Config
	derpMap       string
	ca, psk       string
	json, verbose bool
}

func newRelayProbe() *cobra.Command {
	var o relayProbeOptions
	cmd := &cobra.Command{
		Use:   "probe URL...",
		Short: "Measure relays as a client sees them",
		Long: `Measure relays as a client sees them: log in, check the certificate, send a packet
from one client to another, ask STUN and the captive-portal check. Each run uses
new keys. Several URLs are the relays of one region; with --derp-map all relays
of a map are measured.

Exit code 1 means that a step has failed; the report says which and why.`,
		Example: `  tsnode relay probe https://derp1.example.org
  tsnode relay probe --mesh https://derp1a.example.org https://derp1b.example.org
  tsnode relay probe --derp-map derp.json --bandwidth 10000000 --json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.config.URLs = args
			return o.run(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.derpMap, "derp-map", "", "DERP map in JSON whose relays are measured: a file, a URL, or - for standard input")
	f.BoolVar(&o.config.Mesh, "mesh", false, "also send from each relay of a region to each other one")
	f.BoolVar(&o.config.WebSocket, "websocket", false, "also log in over WebSocket")
	f.BoolVar(&o.config.NoSTUN, "no-stun", false, "leave STUN out")
	f.IntVar(&o.config.Bandwidth.Bytes, "bandwidth", 0, "bytes to send for a bandwidth figure; 0 for none")
	f.IntVar(&o.config.Bandwidth.PacketSize, "packet-size", probe.DefaultPacketSize, "bytes of each packet of --bandwidth")
	f.DurationVar(&o.config.StepTimeout, "timeout", probe.DefaultStepTimeout, "how long one step may take")
	f.StringVar(&o.psk, "mesh-psk-file", "", "file with the region's mesh key, for relays that verify their clients")
	f.StringVar(&o.ca, "ca", "", "PEM file of certificates to trust beside the system's")
	f.BoolVar(&o.json, "json", false, "print JSON")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log more")
	return cmd
}

// run measures and prints the report.
func (o *relayProbeOptions) run(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error {
	if err := o.read(ctx, stdin, stderr); err != nil {
		return &usageError{err}
	}
	r, err := probe.Run(ctx, o.config)
	switch {
	case r == nil:
		return &usageError{err}
	case err != nil:
		return err
	case o.json:
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		err = e.Encode(r)
	default:
		err = r.WriteText(stdout)
	}
	if bad := len(r.Failures()); err == nil && bad > 0 {
		err = fmt.Errorf("relay probe: steps that failed: %d", bad)
	}
	return err
}

// read completes the configuration with what the flags' files say.
func (o *relayProbeOptions) read(ctx context.Context, stdin io.Reader, stderr io.Writer) (err error) {
	c := &o.config
	c.Logger = newQuietLogger(stderr)
	if o.verbose {
		c.Logger = newLogger(stderr, true)
	}
	switch {
	case len(c.URLs) == 0 && o.derpMap == "":
		return errors.New("relay probe: want the URL of a relay, as in https://derp1.example.org, or --derp-map")
	case c.StepTimeout < time.Millisecond:
		return fmt.Errorf("--timeout %v: want a duration such as 10s", c.StepTimeout)
	case c.Bandwidth.Bytes < 0:
		return fmt.Errorf("--bandwidth %d: want a number of bytes", c.Bandwidth.Bytes)
	}
	if o.derpMap != "" {
		if c.Map, err = readDERPMap(ctx, o.derpMap, stdin); err != nil {
			return err
		}
	}
	if o.psk != "" {
		if c.MeshKey, err = relayd.ReadMeshKey(o.psk); err != nil {
			return fmt.Errorf("--mesh-psk-file: %w", err)
		}
	}
	if o.ca != "" {
		if c.Roots, err = relayd.ReadRoots(o.ca); err != nil {
			return fmt.Errorf("--ca: %w", err)
		}
	}
	return nil
}
