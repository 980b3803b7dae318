package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"

	"github.com/msl-hsm/msl-hsm/msl/failurelog"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// failureReports is how a client reports its crypto failures.
type failureReports struct {
	URL      string   `yaml:"url"`      // empty: none are reported
	Identity string   `yaml:"identity"` // default: the client's
	Spool    string   `yaml:"spool"`    // file
	Report   []string `yaml:"report"`   // kinds; default: every one
}

// reporting does what a client does, and reports how it failed. Whether the report
// arrives changes nothing for the client.
func reporting(p *program, over clientConfig, verbose bool, do func() error) error {
	c, err := p.configure()
	if err != nil {
		return err
	}
	overrideClient(&c.Client, over)
	reporter, err := startReporter(p, c, verbose)
	if err != nil {
		return err
	}
	err = do()
	reporter.Observe(err)
	if closing := reporter.Close(); closing != nil && verbose {
		fmt.Fprintln(p.stderr, oneLine(closing))
	}
	return err
}

// startReporter makes a reporter, or none. One whose spool cannot be used does without.
func startReporter(p *program, c *config, verbose bool) (*failurelog.Reporter, error) {
	f := c.Client.Failures
	if f.URL == "" {
		return nil, nil
	}
	u, err := url.Parse(f.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, usagef("client.failures.url is %q: want http://HOST:PORT/failures", f.URL)
	}
	override(&c.Client.Identity, f.Identity)
	if c.Client.Identity == "" {
		return nil, usagef("client.failures has no identity to report as: set client.failures.identity or client.identity")
	}
	web, err := reportWeb(c)
	if err != nil {
		return nil, err
	}
	settings := failurelog.Config{
		Identity: c.Client.Identity, Suffix: c.Client.Suffix, Transport: &mslhttp.Transport{URL: f.URL, Client: web},
		Provider: provider(c), Version: programVersion(), Spool: f.Spool,
	}
	for _, kind := range f.Report {
		settings.Report = append(settings.Report, failurelog.Kind(kind))
	}
	if verbose {
		settings.Log = slog.New(slog.NewTextHandler(p.stderr, nil))
	}
	reporter, err := failurelog.Start(settings)
	if err != nil && settings.Spool != "" {
		if settings.Log != nil {
			settings.Log.Warn("failures are reported without a spool", "error", err)
		}
		settings.Spool = ""
		reporter, err = failurelog.Start(settings)
	}
	if err != nil {
		return nil, usagef("client.failures: %w", err)
	}
	return reporter, nil
}

// reportWeb reaches the server by TLS where it must, but without a certificate of our
// own, whose key may be what fails.
func reportWeb(c *config) (*http.Client, error) {
	keyless := *c
	keyless.Client.URL = c.Client.Failures.URL
	keyless.Client.TLS.Certificate, keyless.Client.TLS.Key = "", ""
	return webClient(&keyless, nil)
}

// provider is the kind of the key store.
func provider(c *config) failurelog.Provider {
	switch {
	case c.Keystore.SoftHSM != "" || strings.HasPrefix(c.Keystore.URI, "pkcs11:"):
		return failurelog.PKCS11
	case strings.HasPrefix(c.Keystore.URI, "tpm:"):
		return failurelog.TPM
	}
	return failurelog.Software
}

// programVersion is the version of this program, as far as it can be reported.
func programVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	version := strings.Trim(info.Main.Version, "()")
	if failurelog.CheckVersion(version) != nil {
		return ""
	}
	return version
}
