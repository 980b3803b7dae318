package config

import (
	"net"
	"net/netip"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// Values of server.access-log that are not files.
const (
	AccessNone  = "none"
	AccessInLog = "log"
)

// Admin configures operators' access to a server.
type Admin struct {
	Socket string `yaml:"socket" example:"/run/msl-hsm/admin.sock"` // where msl-hsm admin reaches a server whose state is in etcd; with a state file, it is FILE.sock instead
	Listen string `yaml:"listen" example:"127.0.0.1:9090"`          // a loopback address for health, readiness, metrics and a status page over HTTP
	Token  string `yaml:"token" example:"file:metrics.token"`       // source of the bearer token required there for metrics and details; tokens from msl-hsm admin page also work
	Health string `yaml:"health" example:"/healthz"`                // path of the server's own URL that tells anyone whether it is ready, only with status 200 or 503
}

// check requires an address that other machines cannot reach, and a token.
func (a *Admin) check() error {
	if a.Health != "" && (!isPath(a.Health) || a.Health == "/") {
		return exit.Usagef("server.admin.health is %q: want a path such as /healthz, since / is for messages", a.Health)
	}
	if a.Listen == "" {
		if a.Token != "" {
			return exit.Usagef("server.admin.token is set, and server.admin.listen is not: name the address, or leave the token out")
		}
		return nil
	}
	if err := CheckLoopback("server.admin.listen", a.Listen); err != nil {
		return err
	}
	if a.Token == "" {
		return exit.Usagef("server.admin.listen is set, and server.admin.token is not: every user of this machine could read the metrics; name a file with a token, such as file:PATH")
	}
	return nil
}

// CheckLoopback requires an address that other machines cannot reach, or none.
func CheckLoopback(what, address string) error {
	if address == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(address)
	if err == nil && host == "localhost" {
		host = "127.0.0.1"
	}
	if ip, bad := netip.ParseAddr(host); err != nil || bad != nil || !ip.IsLoopback() {
		return exit.Usagef("%s is %q: want a loopback address with a port, such as 127.0.0.1:9090, and reach it from other machines through a proxy or a tunnel", what, address)
	}
	return CheckListen(what, address)
}
