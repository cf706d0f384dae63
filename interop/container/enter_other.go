//go:build !linux

package container

import (
	"errors"
	"syscall"
)

func apart() *syscall.SysProcAttr { return nil }

func (s *Spec) enter() error { return errors.New("containers need Linux") }
