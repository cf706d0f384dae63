package certs

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/derp/relay"
)

// What a map node says of a relay whose operator has not chosen anything yet.
// Region IDs from 900 are free for an operator's own relays.
const (
	mapNodeName   = "custom"
	mapNodeRegion = 900
)

// Files is the Provider of a certificate that an operator keeps in files, or of
// a self-signed one.
type Files struct {
	files pair
	host  string
	ip    bool // host is an IP address
	log   *slog.Logger

	current *actor.Cell[*tls.Certificate]
}

// Manual returns the provider of the certificate in dir that is named after
// host: the host without any character outside [A-Za-z0-9.-], and .crt or .key.
// If host is an IP address and there is neither file, it makes a self-signed
// certificate and logs how clients learn to trust it (DERP-154). A nil log
// discards.
func Manual(dir, host string, log *slog.Logger) (*Files, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	_, err := netip.ParseAddr(host)
	m := &Files{host: host, ip: err == nil, log: log, current: actor.NewCell[*tls.Certificate](nil)}
	name := fileName(host)
	if dir == "" || name == "" {
		return nil, fmt.Errorf("certs: a manual certificate needs a directory and a host name, not %q and %q", dir, host)
	}
	m.files = pairIn(dir, name)
	if m.ip && m.files.missing() {
		if err := m.create(); err != nil {
			return nil, fmt.Errorf("certs: make certificate for %s: %w", host, err)
		}
	}
	if err := m.Reload(); err != nil {
		return nil, err
	}
	if m.ip {
		m.logMapNode()
	}
	return m, nil
}

// fileName returns the part of a host name that is safe as a file name
// (DERP-154).
func fileName(host string) string {
	return strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return -1
	}, host)
}

// missing reports whether there is neither file: where one is, an operator has
// put it, and it is not overwritten.
func (p pair) missing() bool {
	_, errCrt := os.Stat(p.crt)
	_, errKey := os.Stat(p.key)
	return errors.Is(errCrt, fs.ErrNotExist) && errors.Is(errKey, fs.ErrNotExist)
}

func (m *Files) create() error {
	cert, err := relay.SelfSigned(m.host)
	if err != nil {
		return err
	}
	return m.files.store(&cert)
}

// Reload reads the files again. The old certificate stays if the new one is not
// good for the host.
func (m *Files) Reload() error {
	cert, err := m.files.load(m.host, time.Now())
	if err != nil && m.ip {
		return fmt.Errorf("certs: %w (replace both files, or remove both and restart to have a new certificate made)", err)
	}
	if err != nil {
		return fmt.Errorf("certs: %w (the relay needs a certificate for %s and its key in these two files)", err, m.host)
	}
	m.current.Store(cert)
	return nil
}

// GetCertificate returns the certificate to a client that asks for the host, or
// for anything if the host is an IP address, which has no server name.
func (m *Files) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if !m.ip && !strings.EqualFold(hello.ServerName, m.host) {
		return nil, fmt.Errorf("certs: client asks for %q, the relay is %s", hello.ServerName, m.host)
	}
	return m.current.Get(), nil
}

// MapNode returns the relay's entry for a DERP map. A certificate without a
// chain is pinned in it, as no authority vouches for it.
func (m *Files) MapNode() netmap.DERPNode {
	n := netmap.DERPNode{Name: mapNodeName, RegionID: mapNodeRegion, HostName: m.host}
	if chain := m.current.Get().Certificate; m.ip && len(chain) == 1 {
		n.CertName = derp.PinCertName(chain[0])
	}
	return n
}

func (m *Files) logMapNode() {
	node, err := json.Marshal(m.MapNode())
	if err != nil {
		m.log.Error("cannot write map node", "err", err)
		return
	}
	m.log.Info("certificate is for an IP address; clients need this node in their DERP map", "node", string(node))
}

// HTTPHandler returns fallback: there are no challenges.
func (*Files) HTTPHandler(fallback http.Handler) http.Handler { return fallback }

// NextProtos offers HTTP/1.1.
func (*Files) NextProtos() []string { return []string{http1} }

// Serve tells when the certificate is about to expire. It does not read the
// files: they change when an operator says so.
func (m *Files) Serve(ctx context.Context) error {
	w := expiryWatch{log: m.log, host: m.host, current: m.current.Get, hint: "replace " + m.files.crt + " and " + m.files.key + ", then send SIGHUP"}
	if m.ip {
		w.hint = "replace both files and send SIGHUP, or remove them and restart; a pin of the certificate in DERP maps changes with it: " + m.files.crt
	}
	return w.run(ctx)
}

// String names the actor.
func (*Files) String() string { return "certs.Files" }
