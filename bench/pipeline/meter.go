package main

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
)

// A meter takes the time and the CPU of one transfer.
type meter struct {
	began time.Time
	cpu   float64
}

func startMeter() meter { return meter{time.Now(), cpuSeconds()} }

func (m meter) stop(bytes int64) report {
	return report{Bytes: bytes, Seconds: time.Since(m.began).Seconds(), CPU: cpuSeconds() - m.cpu, Resident: peakResident()}
}

// cpuSeconds returns the user and system time of this process.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	of := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return of(u.Utime) + of(u.Stime)
}

// peakResident returns the largest resident size of this process in bytes, as
// Linux tells it; 0 elsewhere.
func peakResident() int64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmHWM:" {
			kb, _ := strconv.ParseInt(f[1], 10, 64)
			return kb << 10
		}
	}
	return 0
}

// cipherPerGB returns the CPU seconds that sealing and opening a GB costs on one
// core, in packets of 1,280 bytes.
func cipherPerGB() float64 {
	const size, rounds = 1280, 200_000
	aead, err := chacha20poly1305.New(make([]byte, chacha20poly1305.KeySize))
	if err != nil {
		panic(err) // the key's size is right
	}
	plain, nonce := make([]byte, size), make([]byte, chacha20poly1305.NonceSize)
	sealed, opened := make([]byte, 0, size+aead.Overhead()), make([]byte, 0, size)
	began := cpuSeconds()
	for range rounds {
		sealed = aead.Seal(sealed[:0], nonce, plain, nil)
		if opened, err = aead.Open(opened[:0], nonce, sealed, nil); err != nil {
			panic(err) // it was sealed with the same key
		}
	}
	return (cpuSeconds() - began) / (size * rounds / 1e9)
}
