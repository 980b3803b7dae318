package admin

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// caller returns the user and the process at the other end (SO_PEERCRED of unix(7)).
func caller(conn *net.UnixConn) (who string) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return ""
	}
	raw.Control(func(fd uintptr) {
		if c, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			who = fmt.Sprintf("uid %d pid %d", c.Uid, c.Pid)
		}
	})
	return who
}
