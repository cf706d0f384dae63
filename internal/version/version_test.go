package version

import (
	"runtime/debug"
	"testing"
)

func TestFrom(t *testing.T) {
	settings := func(kv ...string) (s []debug.BuildSetting) {
		for i := 0; i < len(kv); i += 2 {
			s = append(s, debug.BuildSetting{Key: kv[i], Value: kv[i+1]})
		}
		return s
	}
	main := func(v string, s []debug.BuildSetting) *debug.BuildInfo {
		return &debug.BuildInfo{Main: debug.Module{Path: modulePath, Version: v}, Settings: s}
	}
	for name, tt := range map[string]struct {
		stamp string
		info  *debug.BuildInfo
		want  string
	}{
		"stamp wins":          {"v1.2.3", main("v9.9.9", nil), "1.2.3"},
		"no build info":       {"", nil, development},
		"installed":           {"", main("v0.4.0", nil), "0.4.0"},
		"nothing recorded":    {"", main("(devel)", nil), development},
		"checkout":            {"", main("(devel)", settings("vcs.revision", "0123456789abcdef")), development + "+012345678"},
		"changed checkout":    {"", main("", settings("vcs.revision", "0123456789abcdef", "vcs.modified", "true")), development + "+012345678.dirty"},
		"library":             {"", &debug.BuildInfo{Deps: []*debug.Module{{Path: modulePath, Version: "v0.5.0"}}}, "0.5.0"},
		"library by replace":  {"", &debug.BuildInfo{Deps: []*debug.Module{{Path: modulePath, Version: "v0.0.0"}}}, development},
		"other module's hash": {"", &debug.BuildInfo{Main: debug.Module{Path: "example.org/app", Version: "v3.0.0"}, Settings: settings("vcs.revision", "0123456789abcdef")}, development},
	} {
		t.Run(name, func(t *testing.T) {
			if got := from(tt.stamp, tt.info); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
