package config

import (
	"strings"
	"time"
)

// Agent is how programs of this machine reach the agent.
type Agent struct {
	Listen   string            `yaml:"listen"`   // unix:PATH, or a loopback address and port
	Users    map[string]string `yaml:"users"`    // source of the password, by user
	Body     int64             `yaml:"body"`     // bytes of a request
	Requests int               `yaml:"requests"` // at a time
	Timeout  time.Duration     `yaml:"timeout"`  // of one of them
	Shutdown time.Duration     `yaml:"shutdown"` // for those under way
}

// settle makes the paths absolute.
func (c *Agent) settle(dir string) {
	if path, ok := CutUnix(c.Listen); ok {
		c.Listen = "unix:" + within(dir, path)
	}
	for user, source := range c.Users {
		c.Users[user] = Settled(dir, source)
	}
}

func CutUnix(at string) (path string, ok bool) { return strings.CutPrefix(at, "unix:") }
