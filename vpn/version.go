package vpn

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A Version is one of the protocol. Minor versions add to those before them.
type Version struct{ Major, Minor uint64 }

// Versions with what this package must know of them (vpn-tunnel.md section 4.6).
var (
	seedVersion = Version{1, 0} // the only one of peers that put it before the role
	wakeVersion = Version{1, 3} // first with Wake
	ownVersion  = Version{1, 3} // all that this package speaks
)

// String is the version as in a header.
func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// Compare orders versions.
func (v Version) Compare(o Version) int {
	return cmp.Or(cmp.Compare(v.Major, o.Major), cmp.Compare(v.Minor, o.Minor))
}

// parseVersions reads a list of versions: one for each major, ascending, joined
// by commas (vpn-tunnel.md section 2.3).
func parseVersions(text string) (list []Version, err error) {
	for _, entry := range strings.Split(text, ",") {
		v, err := parseVersion(entry)
		if err != nil {
			return nil, fmt.Errorf("version %q of %q: %w", entry, text, err)
		}
		if n := len(list); n > 0 && list[n-1].Major >= v.Major {
			return nil, fmt.Errorf("versions %q: want each major version once, in ascending order", text)
		}
		list = append(list, v)
	}
	return list, nil
}

func parseVersion(text string) (v Version, err error) {
	major, minor, _ := strings.Cut(text, ".")
	if v.Major, err = parseNumber(major); err != nil {
		return v, err
	}
	if v.Minor, err = parseNumber(minor); err != nil {
		return v, err
	}
	if v.Major == 0 {
		return v, errors.New("want a major version of 1 or more")
	}
	return v, nil
}

// parseNumber reads decimal digits alone; strconv would take a sign.
func parseNumber(text string) (uint64, error) {
	if strings.Trim(text, "0123456789") != "" {
		return 0, errors.New("want MAJOR.MINOR in digits")
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, errors.New("want MAJOR.MINOR in digits")
	}
	return n, nil
}

// common returns the version that two lists agree on: the highest major in both,
// with the smaller of its minors.
func common(a, b []Version) (Version, error) {
	for i := len(a) - 1; i >= 0; i-- {
		for _, v := range b {
			if v.Major == a[i].Major {
				return Version{v.Major, min(v.Minor, a[i].Minor)}, nil
			}
		}
	}
	return Version{}, fmt.Errorf("no common version: we speak %v, the peer %v; update the older of the two", a, b)
}
