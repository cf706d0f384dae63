package settings

import (
	"maps"
	"strings"
)

// Changed returns the names of the settings whose values differ.
func (s *Settings) Changed(other *Settings) (names []string) {
	for _, row := range table {
		if row.value(s).String() != row.value(other).String() {
			names = append(names, row.Name)
		}
	}
	return names
}

// Beaten returns the names of the settings that the file has changed since it was
// read for old, and that something else has set.
func (s *Settings) Beaten(old *Settings) (names []string) {
	for _, row := range table {
		is, was := s.file[row.Name], old.file[row.Name]
		if is.value != was.value && s.from[row.Name] != is.from {
			names = append(names, row.Name)
		}
	}
	return names
}

// FileHasSecret reports whether the file holds a secret itself, not the name of
// another file that does.
func (s *Settings) FileHasSecret() bool {
	for _, row := range table {
		text := s.file[row.Name].value
		if row.secret && text != "" && text != "-" && !strings.HasPrefix(text, "file:") {
			return true
		}
	}
	return false
}

// Split tells of the names of settings which changes hold without a restart, and
// which only after one.
func Split(names []string) (live, later []string) {
	isLive := make(map[string]bool)
	for _, row := range table {
		isLive[row.Name] = row.Live
	}
	for _, n := range names {
		if isLive[n] {
			live = append(live, n)
		} else {
			later = append(later, n)
		}
	}
	return live, later
}

// WithLive returns settings with the values of next where a change holds without a
// restart, and of s elsewhere.
func (s *Settings) WithLive(next *Settings) (*Settings, error) {
	both := Defaults()
	both.from, both.file = maps.Clone(s.from), next.file
	for _, row := range table {
		of := s
		if row.Live {
			of = next
			both.from[row.Name] = next.from[row.Name]
		}
		if err := Copy(row.value(both), row.value(of)); err != nil {
			return nil, err
		}
	}
	return both, nil
}

// A Said is a setting that does not have its default.
type Said struct {
	Name   string
	Value  string // empty for a secret
	From   string // what has set it
	Secret bool
}

// Said returns the settings that something has set, without secrets.
func (s *Settings) Said() (all []Said) {
	for _, row := range table {
		from := s.from[row.Name]
		if from == "" {
			continue
		}
		one := Said{Name: row.Name, From: from, Secret: row.secret}
		if !row.secret {
			one.Value = row.value(s).String()
		}
		all = append(all, one)
	}
	return all
}
