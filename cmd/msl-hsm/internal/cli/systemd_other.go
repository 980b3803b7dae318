//go:build !linux

package cli

import "github.com/coreos/go-systemd/v22/daemon"

// reloading is for systemd, which exists only on Linux.
func reloading() string { return daemon.SdNotifyReloading }
