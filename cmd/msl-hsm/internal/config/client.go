package config

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/tpm"
)

// check validates the URLs and addresses that are set.
func (c *Client) check() error {
	if c.URL != "" {
		if err := c.CheckAnyURL(""); err != nil {
			return exit.Usagef("client.url: %w", err)
		}
	}
	if c.Failures.URL != "" {
		if err := c.CheckFailuresURL(); err != nil {
			return err
		}
	}
	if c.Agent.Requests < 1 {
		return exit.Usagef("client.agent.requests is %d: want at least 1", c.Agent.Requests)
	}
	if _, err := c.AntiRollbackIndex(); err != nil {
		return err
	}
	if err := c.TLS.check("client.tls"); err != nil {
		return err
	}
	if _, unix := CutUnix(c.Agent.Listen); unix {
		return nil
	}
	return CheckLoopback("client.agent.listen", c.Agent.Listen)
}

// AntiRollbackIndex returns the NV index of the counter that the state is bound to, or 0.
func (c *Client) AntiRollbackIndex() (tpm2.TPMHandle, error) {
	switch c.AntiRollback {
	case "", "false":
		return 0, nil
	case "true":
		return tpm.DefaultCounter, nil
	}
	n, err := strconv.ParseUint(c.AntiRollback, 0, 32)
	if err != nil || n>>24 != 0x01 {
		return 0, exit.Usagef("client.anti-rollback is %q: want true, false or an NV index, such as %#x", c.AntiRollback, uint32(tpm.DefaultCounter))
	}
	return tpm2.TPMHandle(n), nil
}

// CheckURL requires the URL of a server over HTTP or HTTPS.
func (c *Client) CheckURL() error {
	return checkWebURL("URL of the server", c.URL, "http://HOST:PORT/ or https://HOST/PATH")
}

// CheckAnyURL is CheckURL for a client that can also use persistent connections. If a purpose
// is named, it needs one.
func (c *Client) CheckAnyURL(purpose string) error {
	const want = "http://HOST:PORT/ or https://HOST/PATH, or ws, wss, tcp or tls in place of http"
	const lasting = "tcp://HOST:PORT, tls://HOST:PORT, ws://HOST:PORT/PATH or wss://HOST/PATH"
	u, err := url.Parse(c.URL)
	if err == nil && u.User == nil && c.Lasts() {
		if u.Host == "" || !mslhttp.ValidPort(u) || (u.Scheme == "tcp" || u.Scheme == "tls") && (u.Port() == "" || strings.Trim(u.Path, "/") != "") {
			return exit.Usagef("URL of the server %q: want "+lasting, c.URL)
		}
		return nil
	}
	switch {
	case purpose != "" && c.URL == "":
		return exit.Usagef("no URL of the server: give one for %s: %s", purpose, lasting)
	case purpose != "":
		return exit.Usagef("URL of the server %q: %s needs a connection that lasts: give %s", c.URL, purpose, lasting)
	}
	if err := checkWebURL("URL of the server", c.URL, want); err != nil {
		return err
	}
	return nil
}

// streamSchemes maps the URL schemes of persistent connections to the scheme of the HTTP
// request that begins a WebSocket.
var streamSchemes = map[string]string{"tcp": "", "tls": "", "ws": "http", "wss": "https"}

// Lasts reports whether the URL of the server is for a persistent connection.
func (c *Client) Lasts() bool {
	u, err := url.Parse(c.URL)
	if err != nil {
		return false
	}
	_, lasts := streamSchemes[u.Scheme]
	return lasts
}

// CheckFailuresURL requires an HTTP URL for reports of failures.
func (c *Client) CheckFailuresURL() error {
	return checkWebURL("client.failures.url", c.Failures.URL, "http://HOST:PORT/failures")
}

// NamesNobody reports whether no setting identifies the client.
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

// CheckPeers requires a setting that authenticates the server.
func (c *Client) CheckPeers() error {
	if c.ServerKey == "" && c.ServerRoots == "" && c.ServerPSK == "" {
		return exit.Usagef("no server key configured: give --server-key FILE; on the server, msl-hsm key show msl-identity --public prints it")
	}
	return nil
}
