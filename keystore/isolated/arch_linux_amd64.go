package isolated

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_X86_64

const sysAccept = unix.SYS_ACCEPT
