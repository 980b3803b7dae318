//go:build !linux

package cli

import "github.com/coreos/go-systemd/v22/daemon"

// reloading is for systemd, which runs on Linux only.
func reloading() string { return daemon.SdNotifyReloading }
