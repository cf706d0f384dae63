package container

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// tmpfsSize bounds a file system in memory, in bytes.
const tmpfsSize = 1 << 20

// apart has a process start in namespaces of its own.
func apart() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS}
}

// enter replaces the process by the program, inside the container.
func (s *Spec) enter() error {
	runtime.LockOSThread() // what follows is of a thread, and so is exec
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"mount the root file system", s.mount},
		{"change the root", s.changeRoot},
		{"drop capabilities", dropBoundingSet},
		{"change the user", s.becomeUser},
		{"drop inherited capabilities", dropInherited},
		{"set no_new_privs", func() error { return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return fmt.Errorf("run %s: %w", s.Args[0], syscall.Exec(s.Args[0], s.Args, s.Environ))
}

// mount makes the root a read-only file system, with the others on it.
func (s *Spec) mount() error {
	const locked = unix.MS_NOSUID | unix.MS_NODEV
	err := errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), // so that nobody else sees what follows
		unix.Mount(s.Root, s.Root, "", unix.MS_BIND, ""),
		unix.Mount("", s.Root, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|locked, ""),
	)
	for _, dir := range s.Tmpfs {
		options := fmt.Sprintf("mode=0700,uid=%d,gid=%d,size=%d", s.User, s.User, tmpfsSize)
		err = errors.Join(err, unix.Mount("tmpfs", filepath.Join(s.Root, dir), "tmpfs", locked|unix.MS_NOEXEC, options))
	}
	return err
}

func (s *Spec) changeRoot() error {
	return errors.Join(unix.Chroot(s.Root), unix.Chdir("/"))
}

// dropBoundingSet takes away what a program with file capabilities could get.
func dropBoundingSet() error {
	for c := uintptr(0); ; c++ {
		switch err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err {
		case nil:
		case unix.EINVAL: // the kernel has no more
			return nil
		default:
			return err
		}
	}
}

// becomeUser gives up root, and with it the capabilities in force.
func (s *Spec) becomeUser() error {
	return errors.Join(unix.Setgroups(nil), unix.Setresgid(s.User, s.User, s.User), unix.Setresuid(s.User, s.User, s.User))
}

// dropInherited takes away what a change of the user leaves.
func dropInherited() error {
	var none [2]unix.CapUserData
	return unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0])
}
