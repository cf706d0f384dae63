// Package version tells which tsnode this is. A release is stamped when it is
// linked:
//
//	go build -ldflags "-X github.com/seed94491740/tsnode/internal/version.stamp=v1.2.3" ./cmd/tsnode
//
// Without a stamp the module version or the commit that Go recorded is used,
// and without those a fixed development version.
package version

import (
	"runtime/debug"
	"sync"
)

// development is the version of a build that nothing else is known about; the
// part before the hyphen is the next release.
const development = "0.1.0-dev"

const modulePath = "github.com/seed94491740/tsnode"

var stamp string // set by the linker

// String returns the version without a leading "v".
var String = sync.OnceValue(func() string {
	info, _ := debug.ReadBuildInfo()
	return from(stamp, info)
})

// from chooses among the stamp and what Go recorded; info may be nil.
func from(stamp string, info *debug.BuildInfo) string {
	if stamp != "" {
		return trimV(stamp)
	}
	if info == nil {
		return development
	}
	if v := moduleVersion(info); v != "" {
		return trimV(v)
	}
	if c := commit(info); c != "" && info.Main.Path == modulePath {
		return development + "+" + c
	}
	return development
}

// moduleVersion returns the version of this module, which is the main module of
// the command and a dependency of a program that uses the library.
func moduleVersion(info *debug.BuildInfo) string {
	if info.Main.Path == modulePath {
		return released(info.Main.Version)
	}
	for _, m := range info.Deps {
		if m.Path == modulePath {
			return released(m.Version)
		}
	}
	return ""
}

// released returns v unless it says nothing.
func released(v string) string {
	if v == "(devel)" || v == "v0.0.0" {
		return ""
	}
	return v
}

// commit returns the short hash Go recorded when it built from a checkout.
func commit(info *debug.BuildInfo) string {
	var hash, dirty string
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 9:
			hash = s.Value[:9]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = ".dirty"
		}
	}
	if hash == "" {
		return ""
	}
	return hash + dirty
}

func trimV(v string) string {
	if v[0] == 'v' {
		return v[1:]
	}
	return v
}
