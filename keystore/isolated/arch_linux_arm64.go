package isolated

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

const sysAccept = unix.SYS_ACCEPT
