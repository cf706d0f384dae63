package main

import "testing"

func TestByteSize(t *testing.T) {
	for text, want := range map[string]byteSize{
		"0": 0, "67108864": 64 << 20, "64MiB": 64 << 20, "64 MiB": 64 << 20, "64MB": 64e6, "1.5GiB": 3 << 29,
		"2GB": 2e9, "16KiB": 16 << 10, "16kB": 16e3, "12B": 12,
	} {
		var s byteSize
		if err := s.Set(text); err != nil || s != want {
			t.Errorf("%q: %d, %v, want %d", text, s, err, want)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "64Mi", "1e30", "NaN", "64 MiB MiB", "Inf"} {
		s := byteSize(7)
		if err := s.Set(text); err == nil || s != 7 {
			t.Errorf("%q is taken for %d", text, s)
		}
	}
}
