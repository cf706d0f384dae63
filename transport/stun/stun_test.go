package stun

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// testID is the transaction id of the examples of RFC 5769.
var testID = TxID{0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae}

// Responses of RFC 5769 sections 2.2 and 2.3: a foreign SOFTWARE, then
// XOR-MAPPED-ADDRESS, MESSAGE-INTEGRITY and FINGERPRINT.
const (
	rfc5769v4 = "0101003c 2112a442 b7e7a701bc34d686fa87dfae 8022000b 7465737420766563746f7220 " +
		"00200008 0001a147 e112a643 00080014 2b91f599fd9e90c38c7489f92af9ba53f06be7d7 80280004 c07d4c96"
	rfc5769v6 = "01010048 2112a442 b7e7a701bc34d686fa87dfae 8022000b 7465737420766563746f7220 " +
		"00200014 0002a147 0113a9faa5d3f179bc25f4b5bed2b9d9 00080014 a382954e4be67bf11784c97c8292c275bfe3ed41 80280004 c8fb0b4c"
)

func TestParseResponse(t *testing.T) {
	header := func(length string) string { return "0101" + length + "2112a442 b7e7a701bc34d686fa87dfae" }
	for _, tt := range []struct{ name, msg, want, err string }{
		{"RFC 5769 2.2", rfc5769v4, "192.0.2.1:32853", ""},
		{"RFC 5769 2.3", rfc5769v6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853", ""},
		{"draft attribute", header("000c") + "80200008 0001a147 e112a643", "192.0.2.1:32853", ""},
		{"plain address", header("000c") + "00010008 00011f90 c0000201", "192.0.2.1:8080", ""},
		{"XOR wins over plain", header("0018") + "00200008 0001a147 e112a643 00010008 00011f90 c0000202", "192.0.2.1:32853", ""},
		{"last XOR wins", header("0018") + "00200008 0001a147 e112a643 00200008 0001a147 e112a640", "192.0.2.2:32853", ""},
		{"plain IPv4-mapped", header("0018") + "00010014 00021f90 00000000000000000000ffffc0000201", "192.0.2.1:8080", ""},
		{"longer value", header("0010") + "0001000c 00011f90 c0000201 deadbeef", "192.0.2.1:8080", ""},
		{"trailing bytes", header("000c") + "00010008 00011f90 c0000201 ffff", "192.0.2.1:8080", ""},
		{"no address", header("0000"), "", "without a mapped address"},
		{"length too large", header("0010") + "00010008 00011f90 c0000201", "", "holds 12"},
		{"attribute too long", header("000c") + "00010009 00011f90 c0000201", "", "are left"},
		{"attribute header cut", header("0002") + "0001", "", "attribute header"},
		{"family", header("000c") + "00010008 00031f90 c0000201", "", "family 3"},
		{"short IPv6", header("000c") + "00010008 00021f90 c0000201", "", "want 20"},
		{"short value", header("0008") + "00010003 00011f00", "", "of 3 bytes"},
		{"error response", "01110000 2112a442 b7e7a701bc34d686fa87dfae", "", ErrNotSuccess.Error()},
		{"request", hex.EncodeToString(AppendRequest(nil, testID)), "", ErrNotSuccess.Error()},
		{"no cookie", "01010000 00000000 b7e7a701bc34d686fa87dfae", "", ErrNotSTUN.Error()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id, addr, err := ParseResponse(unhex(t, tt.msg))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || id != testID || addr.String() != tt.want {
				t.Errorf("got %x %v, %v; want %x %s", id, addr, err, testID, tt.want)
			}
		})
	}
}

// TestRequest: NC-01, NC-02. The CRC was computed with an independent
// implementation (Python's zlib.crc32).
func TestRequest(t *testing.T) {
	want := unhex(t, "00010014 2112a442 b7e7a701bc34d686fa87dfae 80220008 7461696c6e6f6465 80280004 9e8df0ce")
	got := AppendRequest(nil, testID)
	if !bytes.Equal(got, want) || len(got) != RequestSize {
		t.Fatalf("got  %x\nwant %x", got, want)
	}
	if id, err := ParseRequest(got); err != nil || id != testID {
		t.Errorf("ParseRequest = %x, %v", id, err)
	}
	if behind := AppendRequest([]byte("x"), testID); !bytes.Equal(behind[1:], want) {
		t.Error("a request appended behind other bytes differs")
	}
}

// TestRejectRequest: NC-08, no answer to anything but our own clients.
func TestRejectRequest(t *testing.T) {
	edit := func(f func(b []byte) []byte) []byte { return f(AppendRequest(nil, testID)) }
	sealed := func(attrs string) []byte {
		a := unhex(t, attrs)
		b := append(appendHeader(nil, typeRequest, len(a)+fingerprintSize, testID), a...)
		return appendAttr(b, attrFingerprint, []byte{byte(fingerprint(b) >> 24), byte(fingerprint(b) >> 16), byte(fingerprint(b) >> 8), byte(fingerprint(b))})
	}
	if _, err := ParseRequest(sealed("80220008 7461696c6e6f6465")); err != nil {
		t.Fatalf("the test's own request: %v", err)
	}
	if _, err := ParseRequest(sealed("80220008 7461696c6e6f6465 00060003 61626300")); err != nil {
		t.Errorf("another attribute between is no reason to refuse: %v", err)
	}
	for name, b := range map[string][]byte{
		"no software":           sealed(""),
		"other software":        sealed("80220004 74657374"),
		"wrong fingerprint":     edit(func(b []byte) []byte { b[39] ^= 1; return b }),
		"changed id":            edit(func(b []byte) []byte { b[12] ^= 1; return b }),
		"no fingerprint":        edit(func(b []byte) []byte { b[3] = 12; return b[:32] }),
		"fingerprint not last":  edit(func(b []byte) []byte { b[3] = 24; return append(b, 0x00, 0x06, 0, 0) }),
		"response":              AppendResponse(nil, testID, netip.MustParseAddrPort("192.0.2.1:1")),
		"bytes behind, counted": edit(func(b []byte) []byte { b[3] = 22; return append(b, 0, 0) }),
	} {
		if _, err := ParseRequest(b); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestTruncated(t *testing.T) {
	full := map[string][]byte{
		"request": AppendRequest(nil, testID),
		"IPv4":    AppendResponse(nil, testID, netip.MustParseAddrPort("192.0.2.1:32853")),
		"IPv6":    AppendResponse(nil, testID, netip.MustParseAddrPort("[2001:db8::1]:32853")),
	}
	for name, b := range full {
		for n := range b {
			if _, err := ParseRequest(b[:n]); err == nil {
				t.Errorf("%s cut to %d bytes is taken for a request", name, n)
			}
			if _, _, err := ParseResponse(b[:n]); err == nil {
				t.Errorf("%s cut to %d bytes is taken for a response", name, n)
			}
		}
	}
}

func TestResponse(t *testing.T) {
	for _, tt := range []struct {
		addr, seen string
		size       int
	}{
		{"192.0.2.1:32853", "192.0.2.1:32853", 32},
		{"[::ffff:192.0.2.1]:32853", "192.0.2.1:32853", 32}, // NC-10
		{"[2001:db8::1]:1", "[2001:db8::1]:1", 44},
	} {
		b := AppendResponse(nil, testID, netip.MustParseAddrPort(tt.addr))
		id, got, err := ParseResponse(b)
		if err != nil || id != testID || got.String() != tt.seen || len(b) != tt.size {
			t.Errorf("%s: %d bytes read as %x %v, %v", tt.addr, len(b), id, got, err)
		}
	}
}

func TestIs(t *testing.T) {
	request := AppendRequest(nil, testID)
	wireguard := append([]byte{4, 0, 0, 0}, make([]byte, 28)...)
	topBits := bytes.Clone(request)
	topBits[0] |= 0x80
	for name, tt := range map[string]struct {
		b    []byte
		want bool
	}{
		"request":   {request, true},
		"wireguard": {wireguard, false},
		"disco":     {[]byte("TS\U0001f4ac" + strings.Repeat("x", 60)), false},
		"top bits":  {topBits, false},
		"short":     {request[:19], false},
		"empty":     {nil, false},
	} {
		if got := Is(tt.b); got != tt.want {
			t.Errorf("%s: Is = %v", name, got)
		}
	}
}

// FuzzParse: whatever arrives, parsing ends; what parses is what we would have
// sent for the same values.
func FuzzParse(f *testing.F) {
	f.Add(unhex(f, rfc5769v4))
	f.Add(unhex(f, rfc5769v6))
	f.Add(AppendRequest(nil, testID))
	f.Add(AppendResponse(nil, testID, netip.MustParseAddrPort("[2001:db8::1]:1")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if id, addr, err := ParseResponse(b); err == nil {
			again, same, err := ParseResponse(AppendResponse(nil, id, addr))
			if err != nil || again != id || same != addr {
				t.Errorf("%v came back as %v, %v", addr, same, err)
			}
		}
		if id, err := ParseRequest(b); err == nil {
			if again, err := ParseRequest(AppendRequest(nil, id)); err != nil || again != id {
				t.Errorf("request %x came back as %x, %v", id, again, err)
			}
		} else if !Is(b) && !errors.Is(err, ErrNotSTUN) {
			t.Errorf("not STUN, but error %v", err)
		}
	})
}
