// Package relayd is a DERP relay that an operator puts on the internet: the
// server of package relay with its sockets, certificates, STUN server, mesh
// links, pages and counters.
//
// It owns the configuration and the life of the process' parts. What a client
// may do is the relay's; where certificates come from is package certs'. The
// reference's secret-store flags (-secrets-url) and its CONNECT proxy are left
// out: the mesh key comes from a file.
//
// Source: doc/protocol/derp.md sections 10 and 14.
package relayd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/transport/derp/mesh"
	"github.com/seed94491740/tsnode/transport/derp/relay"
	"github.com/seed94491740/tsnode/transport/derp/relay/admit"
	"github.com/seed94491740/tsnode/transport/derp/relayd/bootstrap"
	"github.com/seed94491740/tsnode/transport/derp/relayd/certs"
	"github.com/seed94491740/tsnode/transport/stun"
)

// What clients are told when the relay stops (DERP-17): to come back at random
// within reconnectSpread, which a restart takes anyway, and to go on trying for
// tryFor before they call the relay failed.
const (
	reconnectSpread = 5 * time.Second
	tryFor          = 10 * time.Second
)

// A Daemon is one relay with all that belongs to it.
type Daemon struct {
	plan      *plan
	log       *slog.Logger
	relay     *relay.Server
	certs     certs.Provider // nil without TLS
	bootstrap *bootstrap.Service
	links     []*mesh.Link
	verify    admit.Check // nil admits everyone

	started time.Time
	addrs   actor.Cell[Addrs]
	stun    actor.Cell[[]*stun.Server]
	accepts acceptCounts
	tls     tlsCounts
}

// New returns a relay that does not listen yet. Everything that can be wrong in
// a configuration is an error of New, a [*ConfigError] for each setting; then
// nothing has been opened and no key file made.
func New(c Config) (*Daemon, error) {
	p, err := check(c)
	if err != nil {
		return nil, err
	}
	d := &Daemon{plan: p, log: p.log, started: time.Now()}
	if d.bootstrap, err = bootstrap.New(bootstrap.Config{Names: p.BootstrapDNS, Unpublished: p.UnpublishedDNS, Logger: p.log}); err != nil {
		return nil, &ConfigError{"bootstrap-dns-names", err}
	}
	if d.verify, err = newVerify(p); err != nil {
		return nil, &ConfigError{"verify-client-url", err}
	}
	d.relay = relay.New(p.private, p.relayOptions(d.verify))
	if err := d.addLinks(); err != nil {
		return nil, &ConfigError{"mesh-with", err}
	}
	if d.certs, err = newCerts(p); err != nil { // the last, since it makes files
		return nil, &ConfigError{"certmode", err}
	}
	return d, nil
}

func (*Daemon) String() string { return "relayd.Daemon" }

// newVerify returns the checks of clients, nil for none (DERP-73..75).
func newVerify(p *plan) (admit.Check, error) {
	remote, err := admit.URL(p.VerifyURL, p.VerifyURLFailOpen, nil, p.log)
	if !p.VerifyClients {
		return remote, err
	}
	return admit.All(admit.LocalNode(p.Socket, p.log), remote), err
}

func (p *plan) relayOptions(verify admit.Check) relay.Options {
	write := time.Duration(p.WriteTimeout)
	if write == 0 {
		write = -1 // none
	}
	return relay.Options{
		WriteTimeout: write, Logger: p.log, MeshKey: p.meshKey, Duplicates: p.duplicates,
		RateLimit: p.rate, AdvertiseRateLimit: p.Advertise, Verify: verify,
		Debug: relay.Debug{Clients: p.LogClients, Probers: p.LogProbers, Drops: p.logDrops, NoRTT: !p.RTT},
	}
}

// newCerts returns where certificates come from, nil without TLS.
func newCerts(p *plan) (certs.Provider, error) {
	switch p.CertMode {
	case CertNone:
		return nil, nil
	case CertManual:
		return certs.Manual(p.CertDir, p.Hostname, p.log)
	}
	return certs.ACME(certs.ACMEConfig{
		Authority: p.CertMode, Host: p.Hostname, Dir: p.CertDir, Email: p.ACMEEmail,
		EABKeyID: p.ACMEEABKid, EABKey: p.eabKey, IPCerts: p.ACMEIPCerts, Logger: p.log,
	})
}

// Serve listens and relays until ctx ends. It opens all sockets or none; a key
// that is new is written when they are open. Asked to stop it closes the
// sockets, tells the clients (DERP-152), and ends with ctx's error.
func (d *Daemon) Serve(ctx context.Context) error {
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		s, err := d.open(ctx)
		if err != nil {
			return err
		}
		defer s.close()
		defer d.relay.Close()
		if d.plan.newKey {
			if err := writeKeyFile(d.plan.KeyFile, d.plan.private); err != nil {
				return &ConfigError{"key-file", err}
			}
			d.log.Info("made the relay's key", "file", d.plan.KeyFile)
		}
		d.start(g, s)
		<-ctx.Done()
		d.drain(ctx, s)
		return ctx.Err()
	})
}

// start serves what has been opened.
func (d *Daemon) start(g *actor.Group, s *sockets) {
	for _, w := range s.web {
		g.Go(w.serve)
	}
	for _, u := range s.stun {
		g.Go(u.Serve)
	}
	for _, l := range d.links {
		g.Go(l.Serve)
	}
	if d.certs != nil {
		g.Go(d.certs.Serve)
	}
	g.Go(d.bootstrap.Serve)
	d.stun.Store(s.stun)
	d.addrs.Store(s.addrs)
	d.log.Info("relay is running", "listen", s.addrs, "key", d.relay.PublicKey().String(),
		"certmode", d.plan.CertMode, "mesh", d.relay.HasMeshKey(), "links", len(d.links))
}

// drain lets nobody in and tells those who are, within the drain limit.
func (d *Daemon) drain(ctx context.Context, s *sockets) {
	s.stopListening()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Duration(d.plan.Drain))
	defer cancel()
	told := d.relay.Stats().Connections
	d.relay.Shutdown(ctx, reconnectSpread, tryFor)
	d.log.Info("relay has stopped", "clients", told)
}

// Addrs returns what the relay listens to, and a channel that is closed when it
// changes: the zero Addrs until Serve has opened everything.
func (d *Daemon) Addrs() (a Addrs, changed <-chan struct{}) { return d.addrs.Load() }

// Reload reads the receive limit and the certificates again. What is bad keeps
// its old value and is the error.
func (d *Daemon) Reload() error {
	return errors.Join(d.reloadRate(), d.reloadCerts())
}

func (d *Daemon) reloadRate() error {
	if d.plan.RateConfig == "" {
		return nil
	}
	limit, err := readRateConfig(d.plan.RateConfig)
	if err != nil {
		return fmt.Errorf("--rate-config: the old limit stays: %w", err)
	}
	d.relay.SetRateLimit(limit)
	d.log.Info("receive limit per client", "bytes per second", limit.BytesPerSecond, "burst", limit.Burst)
	return nil
}

func (d *Daemon) reloadCerts() error {
	if d.certs == nil {
		return nil
	}
	if err := d.certs.Reload(); err != nil {
		return fmt.Errorf("--certdir: the old certificate stays: %w", err)
	}
	return nil
}

// check returns what is inconsistent: the relay's books, or that the check of
// clients refuses this host's own node (DERP-78).
func (d *Daemon) check(ctx context.Context) error {
	err := d.relay.ConsistencyCheck()
	if d.plan.VerifyClients {
		err = errors.Join(err, admit.SelfCheck(ctx, d.plan.Socket, d.verify))
	}
	return err
}

// tlsConfig returns the settings of the main listener (DERP-96, DERP-106,
// DERP-151).
func (d *Daemon) tlsConfig() *tls.Config {
	cfg := &tls.Config{
		GetCertificate: d.certs.GetCertificate,
		MinVersion:     tls.VersionTLS12,
		NextProtos:     d.certs.NextProtos(),
		// Full-sized records from the start: packets come in batches.
		DynamicRecordSizingDisabled: true,
	}
	d.relay.AddMetaCert(cfg)
	return cfg
}
