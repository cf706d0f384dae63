//go:build unix && !linux && !darwin

package tun

import "errors"

// identify tells the framing of a descriptor: of TUN devices none is known here.
func identify(fd int) (Framing, string, error) {
	if identifySocket(fd) {
		return Framing{}, "", nil
	}
	return Framing{}, "", errors.New("is no socket of AF_UNIX that keeps packets apart: TUN devices are for Linux and macOS")
}
