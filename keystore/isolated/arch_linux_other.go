//go:build linux && !amd64 && !arm64

package isolated

import "golang.org/x/sys/unix"

const auditArch = 0

// sysAccept stands for a call that some of these do not have.
const sysAccept = unix.SYS_ACCEPT4
