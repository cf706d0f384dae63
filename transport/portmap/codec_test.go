package portmap

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	testOwn     = netip.MustParseAddr("192.168.1.10")
	testGateway = netip.MustParseAddr("192.168.1.1")
	testPublic  = netip.MustParseAddr("203.0.113.7")
	testPort    = uint16(41641)
	testNonce   = nonce{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	granted     = netip.AddrPortFrom(testPublic, 50000)
)

var compareAddrs = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.AllowUnexported(pmpAnswer{}, pcpAnswer{}),
}

// TestQueries: requests are as the RFCs draw them (PATH-100, PATH-101).
func TestQueries(t *testing.T) {
	v := vectors(t)
	for name, got := range map[string][]byte{
		"pmp-address-query": appendAddressQuery(nil),
		"pmp-map-query":     pmpMapQuery{internal: testPort, lifetime: 7200}.append(nil),
		"pmp-renew-query":   pmpMapQuery{internal: testPort, wanted: 50000, lifetime: 7200}.append(nil),
		"pmp-delete-query":  pmpMapQuery{internal: testPort}.append(nil),
		"pcp-announce":      appendAnnounce(nil, testOwn),
		"pcp-map-query":     pcpMapQuery{client: testOwn, nonce: testNonce, internal: testPort, lifetime: 7200}.append(nil),
		"pcp-renew-query":   pcpMapQuery{client: testOwn, nonce: testNonce, internal: testPort, wanted: granted, lifetime: 7200}.append(nil),
		"pcp-delete-query":  pcpMapQuery{client: testOwn, nonce: testNonce, internal: testPort}.append(nil),
	} {
		wantBytes(t, name, got, v[name])
	}
}

// TestPMPAnswers: what a gateway says of itself, grants and refuses.
func TestPMPAnswers(t *testing.T) {
	v := vectors(t)
	for name, want := range map[string]pmpAnswer{
		"pmp-address":       {opcode: pmpOpAddress, epoch: 3600, public: testPublic},
		"pmp-address-none":  {opcode: pmpOpAddress, epoch: 3600},
		"pmp-map":           {opcode: pmpOpMapUDP, epoch: 3600, internal: testPort, external: 50000, lifetime: 7200},
		"pmp-refused":       {opcode: pmpOpMapUDP, epoch: 3600, result: pmpRefused},
		"pmp-refused-short": {opcode: pmpOpMapUDP, result: pmpRefused},
		"pmp-version":       {opcode: pmpOpAddress, epoch: 3600, result: pmpUnsupportedVersion},
	} {
		got, err := parsePMP(v[name])
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := cmp.Diff(want, got, compareAddrs); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

// TestPCPAnswers: the same of PCP.
func TestPCPAnswers(t *testing.T) {
	v := vectors(t)
	mapped := pcpAnswer{opcode: pcpOpMap, lifetime: 7200, epoch: 3600, nonce: testNonce, protocol: protocolUDP, internal: testPort, external: granted}
	noAddress := mapped
	noAddress.external = netip.AddrPort{}
	refused := noAddress
	refused.result, refused.lifetime = pcpNotAuthorized, 1800
	for name, want := range map[string]pcpAnswer{
		"pcp-announced":      {opcode: pcpOpAnnounce, epoch: 3600},
		"pcp-map":            mapped,
		"pcp-map-no-address": noAddress,
		"pcp-not-authorized": refused,
		"pcp-mismatch":       {opcode: pcpOpMap, result: pcpAddressMismatch, lifetime: 1800, epoch: 3600},
	} {
		got, err := parsePCP(v[name])
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := cmp.Diff(want, got, compareAddrs); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

// TestTruncations: no answer with a result passes when it is cut short.
func TestTruncations(t *testing.T) {
	for name, b := range vectors(t) {
		for n := range len(b) {
			a, err := parsePMP(b[:n])
			if err == nil && a.result == pmpSuccess {
				t.Errorf("%s cut to %d bytes is a NAT-PMP answer: %+v", name, n, a)
			}
			if c, err := parsePCP(b[:n]); err == nil && c.result == pcpSuccess && (c.opcode == pcpOpMap || n < pcpHeaderSize) {
				t.Errorf("%s cut to %d bytes is a PCP answer: %+v", name, n, c)
			}
		}
	}
}

// TestMalformed: errors name what is wrong.
func TestMalformed(t *testing.T) {
	v := vectors(t)
	for _, tt := range []struct {
		name string
		err  func() error
		want string
	}{
		{"request as NAT-PMP answer", func() error { _, err := parsePMP(v["pmp-map-query"]); return err }, "opcode 0x01"},
		{"PCP as NAT-PMP", func() error { _, err := parsePMP(v["pcp-map"]); return err }, "version 2"},
		{"TCP mapping", func() error { _, err := parsePMP([]byte{0, 0x82, 0, 0, 0, 0, 0, 0}); return err }, "opcode 2"},
		{"short NAT-PMP", func() error { _, err := parsePMP([]byte{0, 0x81, 0}); return err }, "3 bytes"},
		{"other version of PCP", func() error { _, err := parsePCP(v["pcp-version"]); return err }, "version 1"},
		{"request as PCP answer", func() error { _, err := parsePCP(v["pcp-announce"]); return err }, "opcode 0x00"},
		{"PEER", func() error { _, err := parsePCP(append([]byte{2, 0x82, 0, 0}, make([]byte, 80)...)); return err }, "opcode 2"},
		{"long PCP", func() error { _, err := parsePCP(make([]byte, 1101)); return err }, "1101 bytes"},
	} {
		if err := tt.err(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", tt.name, err, tt.want)
		}
	}
}

// TestResultsSayWhatToDo: no result is told as a bare number where the RFC has
// a meaning for it.
func TestResultsSayWhatToDo(t *testing.T) {
	for r := range pmpResult(6) {
		if s := r.Error(); strings.Contains(s, "result") {
			t.Errorf("NAT-PMP result %d: %q", r, s)
		}
	}
	for _, r := range []pcpResult{pcpSuccess, pcpUnsupportedVersion, pcpNotAuthorized, pcpNetworkFailure, pcpNoResources, pcpUserExceededQuota, pcpCannotProvide, pcpAddressMismatch} {
		if s := r.Error(); strings.Contains(s, "result") {
			t.Errorf("PCP result %d: %q", r, s)
		}
	}
	if pmpResult(9).Error() != "NAT-PMP: result 9" || pcpResult(99).Error() != "PCP: result 99" {
		t.Error("unknown results lose their number")
	}
}

func FuzzPMP(f *testing.F) {
	for _, b := range vectors(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parsePMP(b)
		if err != nil || a.result != pmpSuccess || a.opcode != pmpOpMapUDP {
			return
		}
		// What a gateway grants can be asked for again, in the same numbers.
		q := pmpMapQuery{internal: a.internal, wanted: a.external, lifetime: a.lifetime}.append(nil)
		if string(q[4:]) != string(b[8:16]) {
			t.Errorf("asks %x for what was granted as %x", q, b)
		}
	})
}

func FuzzPCP(f *testing.F) {
	for _, b := range vectors(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parsePCP(b)
		if err != nil || !a.external.IsValid() || a.result != pcpSuccess {
			return
		}
		q := pcpMapQuery{client: testOwn, nonce: a.nonce, internal: a.internal, wanted: a.external, lifetime: a.lifetime}.append(nil)
		if string(q[24:36]) != string(b[24:36]) || string(q[40:44]) != string(b[40:44]) || a.external.Port() == 0 || !a.external.Addr().Is4() {
			t.Errorf("asks %x for what was granted as %x", q, b)
		}
	})
}
