//go:build linux && !amd64 && !arm64

package isolated

const auditArch = 0
