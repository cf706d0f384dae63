package tsnode

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/seed94491740/tsnode/"

// leaves may be imported by every package of the product but by one another
// only as mayImport says.
var leaves = []string{"key", "host", "packet", "internal/actor"}

// data is what protocol packages may import beside the leaves.
var data = []string{"netmap", "transport", "transport/stun"}

// mayImport says which packages of the product each package may import
// (ARCHITECTURE.md, "Imports"). Adding an edge means changing both.
var mayImport = map[string][]string{
	"key":            {},
	"packet":         {},
	"host":           {"packet", "internal/actor"},
	"host/iface":     {"host"},
	"internal/actor": {},

	"internal/version":  {},
	"internal/ownnet":   {}, // of tests
	"internal/settings": slices.Concat(leaves, []string{"node", "proxy", "state"}),

	"netmap":         leaves,
	"transport":      leaves,
	"transport/stun": leaves,

	"control":        slices.Concat(leaves, data, []string{"tka"}),
	"packetfilter":   slices.Concat(leaves, data),
	"state":          slices.Concat(leaves, data),
	"transport/udp":  slices.Concat(leaves, data),
	"transport/derp": slices.Concat(leaves, data),
	"disco":          slices.Concat(leaves, data),
	"netcheck":       slices.Concat(leaves, data),
	"dns":            slices.Concat(leaves, data),
	"peerapi":        slices.Concat(leaves, data),

	"transport/portmap": slices.Concat(leaves, data),
	"endpoints":         slices.Concat(leaves, data, []string{"netcheck", "transport/portmap"}),
	"internal/simnet":   leaves,

	"transport/derp/websocket": {},
	"transport/derp/mesh":      slices.Concat(leaves, data, []string{"transport/derp", "transport/derp/relay"}),
	"transport/derp/probe":     slices.Concat(leaves, data, []string{"transport/derp", "transport/derp/websocket"}),
	"transport/derp/relay":     slices.Concat(leaves, data, []string{"transport/derp", "transport/derp/websocket"}),
	"transport/derp/relayd": slices.Concat(leaves, data, []string{
		"transport/derp", "transport/derp/relay", "transport/derp/relay/admit", "transport/derp/mesh",
		"transport/derp/relayd/certs", "transport/derp/relayd/bootstrap", "internal/version",
	}),

	"transport/derp/relay/admit":      slices.Concat(leaves, []string{"transport/derp/relay"}),
	"transport/derp/relayd/bootstrap": leaves,
	"transport/derp/relayd/certs":     slices.Concat(leaves, data, []string{"transport/derp", "transport/derp/relay"}),

	"netstack":            leaves,
	"dataplane/wireguard": leaves,
	"dataplane":           slices.Concat(leaves, data, []string{"packetfilter", "dataplane/wireguard"}),
	"dataplane/tun":       slices.Concat(leaves, []string{"dataplane"}),

	"node": slices.Concat(leaves, data, []string{
		"control", "dataplane", "dataplane/wireguard", "netstack", "packetfilter", "state",
		"transport/derp", "transport/udp", "transport/portmap", "internal/version",
		"disco", "netcheck", "endpoints", "dns", "internal/carry", "proxy/socks", "peerapi", "localapi",
	}),
	"devnet": slices.Concat(leaves, data, []string{
		"control", "devnet/internal/policy", "transport/derp", "transport/derp/relay",
	}),
	"vpn":               slices.Concat(leaves, []string{"netmap", "vpn/internal/wire"}),
	"vpn/internal/wire": {},

	"devnet/internal/policy": slices.Concat(leaves, data),
	"tka":                    leaves,
	"localapi":               slices.Concat(leaves, []string{"netmap", "internal/carry"}),

	"internal/carry": {"internal/actor", "host"},
	"proxy/socks":    slices.Concat(leaves, []string{"internal/carry"}),
	"proxy":          slices.Concat(leaves, []string{"netmap", "internal/carry", "proxy/socks"}),
}

// mayImportAnything are programs: nothing imports them.
var mayImportAnything = []string{"cmd/", "examples/", "interop/", "bench/"}

// onlyIn says which packages of the product may import a foreign package, by
// prefix of its path.
var onlyIn = map[string][]string{
	"gvisor.dev/gvisor":                      {"netstack"},
	"golang.zx2c4.com/wireguard":             {"dataplane/wireguard"},
	"github.com/gaissmai/bart":               {"dataplane", "packetfilter"},
	"github.com/tailscale/hujson":            {"devnet/internal/policy", "transport/derp/relayd", "internal/settings"},
	"github.com/VictoriaMetrics/metrics":     {"transport/derp/relayd"},
	"github.com/klauspost/compress":          {"control", "devnet"},
	"github.com/pires/go-proxyproto":         {"proxy"},
	"github.com/coder/websocket":             {"transport/derp/websocket"},
	"golang.org/x/crypto/acme":               {"transport/derp/relayd/certs"},
	"github.com/spf13/cobra":                 {"cmd/"},
	"rsc.io/qr":                              {"cmd/"},
	"google.golang.org/protobuf":             {"vpn", "vpn/"},
	"tailscale.com":                          {},
	"golang.zx2c4.com/wireguard/device":      {},
	"golang.zx2c4.com/wireguard/tai64n":      {},
	"github.com/klauspost/compress/internal": {},
}

// A goPackage is what go list says of a package.
type goPackage struct {
	ImportPath string
	Imports    []string
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		switch err := d.Decode(&p); {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			t.Fatalf("go list: %v", err)
		}
		all = append(all, p)
	}
}

func hasAnyPrefix(s string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) })
}

func TestImportsPointDown(t *testing.T) {
	for _, p := range listPackages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		if p.ImportPath == strings.TrimSuffix(module, "/") || hasAnyPrefix(name, mayImportAnything) {
			continue
		}
		allowed, known := mayImport[name]
		if !known {
			t.Errorf("package %s has no row in mayImport", name)
			continue
		}
		for _, imp := range p.Imports {
			if own, ok := strings.CutPrefix(imp, module); ok && !slices.Contains(allowed, own) {
				t.Errorf("%s must not import %s", name, own)
			}
		}
	}
}

func TestForeignImports(t *testing.T) {
	for _, p := range listPackages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		for _, imp := range p.Imports {
			for foreign, in := range onlyIn {
				if (imp == foreign || strings.HasPrefix(imp, foreign+"/")) && !slices.Contains(in, name) && !hasAnyPrefix(name, dirs(in)) {
					t.Errorf("%s must not import %s", name, imp)
				}
			}
		}
	}
}

// dirs returns the elements that name a folder.
func dirs(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(s string) bool { return !strings.HasSuffix(s, "/") })
}
