package main

import (
	"time"

	"github.com/spf13/pflag"

	"github.com/seed94491740/tsnode/transport/derp/relayd"
)

// addRelayFlags defines a flag for each setting of c. What c says is the
// default.
func addRelayFlags(f *pflag.FlagSet, c *relayd.Config) {
	f.StringVar(&c.Hostname, "hostname", c.Hostname, "DNS name or IP address that clients dial")
	f.StringVar(&c.Addr, "addr", c.Addr, "[IP]:port of HTTPS; of HTTP with --certmode none")
	f.IntVar(&c.HTTPPort, "http-port", c.HTTPPort, "TCP port of HTTP beside HTTPS, on the same IP; -1 for none")
	f.BoolVar(&c.DERP, "derp", c.DERP, "relay packets; false serves all else")
	f.BoolVar(&c.STUN, "stun", c.STUN, "serve STUN on the same IP")
	f.IntVar(&c.STUNPort, "stun-port", c.STUNPort, "UDP port of STUN")
	f.StringVarP(&c.KeyFile, "key-file", "c", c.KeyFile, "file that keeps the relay's key, made on first start")
	f.BoolVar(&c.Dev, "dev", c.Dev, "port 3340, plain HTTP, no debug server, a new key on each start, where nothing else is said")
	addCertFlags(f, &c.Certificates)
	addMeshFlags(f, &c.Mesh)
	addAdmissionFlags(f, &c.Admission)
	addLimitFlags(f, &c.Limits)
	addPageFlags(f, &c.Pages)
	addSocketFlags(f, &c.Sockets)
	durationVar(f, &c.Drain, "drain", "how long clients may take to hear that the relay stops")
	addLogFlags(f, &c.Logs)
}

func addCertFlags(f *pflag.FlagSet, c *relayd.Certificates) {
	f.StringVar(&c.CertMode, "certmode", c.CertMode, "where certificates come from: manual (files in --certdir), letsencrypt, gcp, none (plain HTTP)")
	f.StringVar(&c.CertDir, "certdir", c.CertDir, "folder of HOSTNAME.crt and HOSTNAME.key, or of what ACME has issued; manual: reloaded on SIGHUP")
	f.StringVar(&c.ACMEEmail, "acme-email", c.ACMEEmail, "address that the certificate authority may write to")
	f.StringVar(&c.ACMEEABKid, "acme-eab-kid", c.ACMEEABKid, "key ID of the external account, for gcp")
	f.StringVar(&c.ACMEEABKey, "acme-eab-key", c.ACMEEABKey, "HMAC key of the external account in base64, for gcp: file:PATH, or the key itself")
	f.BoolVar(&c.ACMEIPCerts, "acme-ip-certs", c.ACMEIPCerts, "letsencrypt: certificates for the IP addresses that clients dial, too")
}

func addMeshFlags(f *pflag.FlagSet, c *relayd.Mesh) {
	f.StringVar(&c.PSKFile, "mesh-psk-file", c.PSKFile, "file with the mesh key of the region, 64 hex digits")
	f.StringSliceVar(&c.MeshWith, "mesh-with", c.MeshWith, "other relays of the region: host, or host/address to dial; this relay may be among them")
	f.StringVar(&c.MeshCA, "mesh-ca", c.MeshCA, "PEM file of certificates that mesh links trust beside the system's")
}

func addAdmissionFlags(f *pflag.FlagSet, c *relayd.Admission) {
	f.BoolVar(&c.VerifyClients, "verify-clients", c.VerifyClients, "take only clients that the tailnet node of this machine knows")
	f.StringVar(&c.Socket, "socket", c.Socket, "unix socket of that node (default: the platform's)")
	f.StringVar(&c.VerifyURL, "verify-client-url", c.VerifyURL, "URL that is asked whether a client may use the relay")
	f.BoolVar(&c.VerifyURLFailOpen, "verify-client-url-fail-open", c.VerifyURLFailOpen, "take clients when that URL cannot be reached")
}

func addLimitFlags(f *pflag.FlagSet, c *relayd.Limits) {
	f.Float64Var(&c.AcceptLimit, "accept-connection-limit", c.AcceptLimit, "new connections per second; 0 for no limit")
	f.IntVar(&c.AcceptBurst, "accept-connection-burst", c.AcceptBurst, "connections that may come at once under that limit")
	f.StringVar(&c.RateConfig, "rate-config", c.RateConfig, `file with the receive limit per client, {"PerClientRateLimitBytesPerSec": N, "PerClientRateBurstBytes": N}; reloaded on SIGHUP`)
	f.BoolVar(&c.Advertise, "advertise-rate-limit", c.Advertise, "tell clients that limit, so that they keep it themselves")
	f.StringVar(&c.Duplicates, "duplicates", c.Duplicates, "which of two connections with one key gets packets: last-writer, or disable-fighters (none, while both speak)")
}

func addPageFlags(f *pflag.FlagSet, c *relayd.Pages) {
	f.StringVar(&c.Home, "home", c.Home, "what / shows: empty for a page about the relay, blank, or a URL to redirect to")
	f.StringSliceVar(&c.BootstrapDNS, "bootstrap-dns-names", c.BootstrapDNS, "names that /bootstrap-dns resolves for clients without DNS")
	f.StringSliceVar(&c.UnpublishedDNS, "unpublished-bootstrap-dns-names", c.UnpublishedDNS, "names that it resolves for those who ask by name: name, or name/txtname with the share of clients in percent as TXT record")
}

func addSocketFlags(f *pflag.FlagSet, c *relayd.Sockets) {
	f.StringVar(&c.DebugAddr, "debug-addr", c.DebugAddr, "IP:port of /debug/ and /metrics; empty for none")
	f.StringSliceVar(&c.DebugAllow, "debug-allow", c.DebugAllow, "addresses and networks that may use it beside loopback, as in 192.0.2.0/24")
	f.StringVar(&c.MetricsAddr, "metrics-addr", c.MetricsAddr, "IP:port of /metrics alone, for all who reach it; empty for none")
	durationVar(f, &c.KeepAlive, "tcp-keepalive-time", "TCP keep-alive period of clients; DERP has its own of 60s")
	durationVar(f, &c.UserTimeout, "tcp-user-timeout", "how long sent data may stay unacknowledged (Linux); 0 for the system's default")
	durationVar(f, &c.WriteTimeout, "tcp-write-timeout", "how long a client may take to accept a write before it is disconnected; 0 for no limit")
}

func addLogFlags(f *pflag.FlagSet, c *relayd.Logs) {
	f.TextVar(&c.LogLevel, "log-level", c.LogLevel, "debug, info, warn or error; reloaded on SIGHUP")
	f.BoolVar(&c.LogClients, "log-clients", c.LogClients, "log clients that come and go")
	f.BoolVar(&c.LogProbers, "log-probers", c.LogProbers, "log probers that come and go")
	f.StringSliceVar(&c.LogDrops, "log-drops", c.LogDrops, "node keys: log packets to them that are dropped")
	f.BoolVar(&c.RTT, "tcp-rtt-stats", c.RTT, "sample the round trip times of clients every 10s (Linux)")
}

// durationVar defines a flag whose default is what d holds.
func durationVar(f *pflag.FlagSet, d *relayd.Duration, name, usage string) {
	f.DurationVar((*time.Duration)(d), name, time.Duration(*d), usage)
}
