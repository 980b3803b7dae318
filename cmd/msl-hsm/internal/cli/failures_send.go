package cli

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/clientside"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/msl/failurelog"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// reporting runs a client and reports its failure. Whether the report arrives makes no
// difference to the client.
func reporting(p *program, over config.Client, verbose bool, do func() error) error {
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
		fmt.Fprintln(p.stderr, exit.OneLine(closing))
	}
	return err
}

// startReporter makes a reporter, or none. If the spool cannot be used, the reporter
// works without it.
func startReporter(p *program, c *config.Config, verbose bool) (*failurelog.Reporter, error) {
	f := c.Client.Failures
	if f.URL == "" {
		return nil, nil
	}
	if err := c.Client.CheckFailuresURL(); err != nil {
		return nil, err
	}
	config.Override(&c.Client.Identity, f.Identity)
	if c.Client.Identity == "" {
		return nil, exit.Usagef("client.failures has no identity to report as: set client.failures.identity or client.identity")
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
		return nil, exit.Usagef("client.failures: %w", err)
	}
	return reporter, nil
}

// reportWeb returns an HTTP client for the server that uses TLS where required, but no
// client certificate, since its key may be what fails.
func reportWeb(c *config.Config) (*http.Client, error) {
	keyless := *c
	keyless.Client.URL = c.Client.Failures.URL
	keyless.Client.TLS.Certificate, keyless.Client.TLS.Key = "", ""
	return clientside.WebClient(&keyless, nil)
}

// provider returns the kind of the key store.
func provider(c *config.Config) failurelog.Provider {
	switch {
	case c.Keystore.SoftHSM != "" || len(c.Keystore.Tokens) > 0 || config.IsPKCS11(c.Keystore.URI):
		return failurelog.PKCS11
	case strings.HasPrefix(c.Keystore.URI, "tpm:"):
		return failurelog.TPM
	}
	return failurelog.Software
}

// programVersion returns the version of this program, if it can be reported.
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
