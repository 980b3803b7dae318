package config

import (
	"net/url"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// CheckURL wants the URL of a server over HTTP or HTTPS.
func (c *Client) CheckURL() error {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return exit.Usagef("URL of the server %q: want http://HOST:PORT/ or https://HOST/PATH", c.URL)
	}
	return nil
}

// NamesNobody reports whether nothing says who the client is.
func (c *Client) NamesNobody() bool {
	return c.Identity == "" && c.Key == "" && c.Certificate == "" && c.PSK == "" && c.PSKKeys == "" && c.EntityScheme != "PROVISIONED"
}

// Owner names whose tokens a state file keeps.
func (c *Client) Owner() string {
	name := c.Identity
	switch {
	case c.Suffix != "":
		name += "." + c.Suffix
	case c.Profile != "":
		name += "-" + c.Profile
	}
	return name + " at " + c.Recipient
}

// CheckPeers wants something by which the server can be authenticated.
func (c *Client) CheckPeers() error {
	if c.ServerKey == "" && c.ServerRoots == "" && c.ServerPSK == "" {
		return exit.Usagef("no server key configured: give --server-key FILE; on the server, msl-hsm key show msl-identity --public prints it")
	}
	return nil
}
