//go:build !windows

// Command msl-hsm runs an MSL server whose keys stay in an HSM, and talks to
// one: "msl-hsm help" lists its verbs.
package main

import (
	"os"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/cli"
)

func main() { os.Exit(cli.Run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
