//go:build !unix

package main

import (
	"errors"
	"os"

	"github.com/seed94491740/tsnode/vpn"
)

// errNoDescriptors says that descriptors are not inherited by number here.
var errNoDescriptors = errors.New("--fd, --read-fd and --write-fd are for unix: use standard input and output")

func inheritedSocket(int) (vpn.Stream, error)     { return nil, &usageError{errNoDescriptors} }
func inheritedPipes(int, int) (vpn.Stream, error) { return nil, &usageError{errNoDescriptors} }

// duplicatedPipes is the stream on standard input and output.
func duplicatedPipes(in, out *os.File) (vpn.Stream, error) { return vpn.Pair(in, out), nil }
