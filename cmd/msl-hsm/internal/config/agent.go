package config

import (
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// Agent configures how programs on this machine reach the agent.
type Agent struct {
	Listen   string            `yaml:"listen" example:"unix:/run/msl-hsm.sock"`              // or a loopback address; default: msl-hsm-agent.sock in $RUNTIME_DIRECTORY or $XDG_RUNTIME_DIR
	Users    map[string]string `yaml:"users" example:"\nada@example.com: file:ada.password"` // users that programs may send for, with the source of each password
	Body     int64             `yaml:"body"`                                                 // bytes of a request; on the wire they are 2.4 times as many
	HTTP     bool              `yaml:"http"`                                                 // send whole HTTP requests, with method, path and headers; the server needs server.http
	Ahead    int64             `yaml:"ahead" example:"25165824"`                             // bytes of a request kept in memory if its answer begins before it ends; default: same as body
	Requests int               `yaml:"requests"`                                             // concurrent requests; others wait
	Timeout  time.Duration     `yaml:"timeout" example:"1m"`                                 // of a request; negative: no limit
	Idle     time.Duration     `yaml:"idle" example:"1m"`                                    // how long a request that takes longer than timeout may pause; default: with http same as timeout, else no request may take longer
	Watch    Watch             `yaml:"watch" example:"5s"`                                   // how often to check the configuration, the certificates of client.tls and the PIN for changes; a change is applied once the file stays the same, as by SIGHUP; or off
	Shutdown time.Duration     `yaml:"shutdown"`                                             // time to finish requests in progress
}

func (c *Agent) settle(dir string) {
	if path, ok := CutUnix(c.Listen); ok {
		c.Listen = "unix:" + within(dir, path)
	}
	users := map[string]string{}
	for user, source := range c.Users {
		users[msl.CanonicalName(user)] = Settled(dir, source)
	}
	c.Users = users
}
