package main

import (
	"context"
	"debug/buildinfo"
	"os"
	"strings"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/seed94491740/tsnode/bench/internal/rounds"
)

// hellos are the same small program with either kind of node.
func hellos() map[kind]program {
	return map[kind]program{ours: {"..", "examples/web", stripped}, tsnet: {"tsnet", "hello", stripped}}
}

var stripped = []string{"-trimpath", "-ldflags=-s -w"}

// sizing measures a program with a node in it.
func (f *field) sizing(ctx context.Context, k kind, _ *rounds.Round) (rounds.Sample, error) {
	p := f.hellos[k]
	path, err := f.file(ctx, p)
	if err != nil {
		return nil, err
	}
	file, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return nil, err
	}
	packages, err := goCommand(ctx, p.module, "list", "-deps", "./"+p.pkg)
	return rounds.Sample{
		"size": float64(file.Size()) / 1e6, "modules": float64(len(info.Deps)),
		"packages": float64(strings.Count(packages, "\n")),
	}, err
}

const (
	cipherSize   = 1280 // bytes of a packet at the overlay's MTU
	cipherRounds = 100_000
)

// cipher measures sealing and opening alone, on one core.
func cipher(_ context.Context, r *rounds.Round) (rounds.Sample, error) {
	if err := r.Begin(); err != nil {
		return nil, err
	}
	aead, err := chacha20poly1305.New(make([]byte, chacha20poly1305.KeySize))
	if err != nil {
		return nil, err
	}
	plain, nonce := make([]byte, cipherSize), make([]byte, chacha20poly1305.NonceSize)
	sealed, opened := make([]byte, 0, cipherSize+aead.Overhead()), make([]byte, 0, cipherSize)
	began := time.Now()
	for range cipherRounds {
		sealed = aead.Seal(sealed[:0], nonce, plain, nil)
	}
	seal := time.Since(began)
	began = time.Now()
	for range cipherRounds {
		if _, err := aead.Open(opened[:0], nonce, sealed, nil); err != nil {
			return nil, err
		}
	}
	open := time.Since(began)
	return rounds.Sample{
		"seal": micro(seal) / cipherRounds, "open": micro(open) / cipherRounds,
		"both": (seal + open).Seconds() / (cipherSize * cipherRounds / 1e9),
	}, r.End()
}
