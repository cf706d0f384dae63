package host

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// attribute returns one attribute of rtnetlink(7).
func attribute(typ uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, value...)
	for len(b)%unix.NLMSG_ALIGNTO != 0 {
		b = append(b, 0)
	}
	return b
}

// addressMessage returns the message about an address of interface 2.
func addressMessage(bits, flags byte, attrs ...[]byte) []byte {
	body := []byte{unix.AF_UNSPEC, bits, flags, unix.RT_SCOPE_UNIVERSE}
	body = binary.NativeEndian.AppendUint32(body, 2)
	return netlinkMessage(unix.RTM_NEWADDR, append(body, slices.Concat(attrs...)...)...)
}

func addressAttribute(typ uint16, a string) []byte {
	return attribute(typ, netip.MustParseAddr(a).AsSlice())
}

// addressDumps are dumps of a single address; want is empty where that is not
// used.
var addressDumps = []struct {
	name string
	dump []byte
	want string
}{
	{"IPv4", addressMessage(24, 0, addressAttribute(unix.IFA_ADDRESS, "192.168.1.5"), addressAttribute(unix.IFA_LOCAL, "192.168.1.5")), "192.168.1.5/24"},
	{"between two", addressMessage(32, 0, addressAttribute(unix.IFA_ADDRESS, "10.0.0.1"), addressAttribute(unix.IFA_LOCAL, "10.0.0.2")), "10.0.0.2/32"},
	{"IPv6", addressMessage(64, unix.IFA_F_PERMANENT, addressAttribute(unix.IFA_ADDRESS, "2001:db8::5")), "2001:db8::5/64"},
	{"tentative", addressMessage(64, unix.IFA_F_TENTATIVE, addressAttribute(unix.IFA_ADDRESS, "2001:db8::5")), ""},
	{"taken", addressMessage(64, unix.IFA_F_DADFAILED, addressAttribute(unix.IFA_ADDRESS, "2001:db8::5")), ""},
	{"optimistic", addressMessage(64, unix.IFA_F_TENTATIVE|unix.IFA_F_OPTIMISTIC, addressAttribute(unix.IFA_ADDRESS, "2001:db8::5")), "2001:db8::5/64"},
	{"flags of 32 bits", addressMessage(64, 0, addressAttribute(unix.IFA_ADDRESS, "2001:db8::5"),
		attribute(unix.IFA_FLAGS, binary.NativeEndian.AppendUint32(nil, unix.IFA_F_TENTATIVE|unix.IFA_F_MANAGETEMPADDR))), ""},
	{"no address", addressMessage(24, 0), ""},
	{"address of no length", addressMessage(24, 0, attribute(unix.IFA_ADDRESS, []byte{1, 2, 3})), ""},
	{"too many bits", addressMessage(33, 0, addressAttribute(unix.IFA_LOCAL, "10.0.0.2")), ""},
	{"a link", netlinkMessage(unix.RTM_NEWLINK, make([]byte, 16)...), ""},
}

func TestParseAddresses(t *testing.T) {
	for _, tt := range addressDumps {
		want := make(map[int][]netip.Prefix)
		if tt.want != "" {
			want[2] = []netip.Prefix{netip.MustParsePrefix(tt.want)}
		}
		got, err := parseAddresses(tt.dump)
		if err != nil || !maps.EqualFunc(got, want, slices.Equal[[]netip.Prefix]) {
			t.Errorf("%s: %v, %v; want %v", tt.name, got, err, want)
		}
		for n := range tt.dump {
			if got, err := parseAddresses(tt.dump[:n]); err == nil && len(got) > 0 {
				t.Errorf("%s: %d bytes of it hold %v", tt.name, n, got)
			}
		}
	}
}

func FuzzParseAddresses(f *testing.F) {
	for _, tt := range addressDumps {
		f.Add(tt.dump)
	}
	f.Fuzz(func(t *testing.T, dump []byte) {
		all, err := parseAddresses(dump)
		if err != nil {
			return
		}
		for index, ps := range all {
			for _, p := range ps {
				if !p.IsValid() || index < 0 {
					t.Errorf("interface %d has %v", index, p)
				}
			}
		}
	})
}
