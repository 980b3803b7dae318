package config

import (
	"crypto/tls"
	"fmt"

	"go.yaml.in/yaml/v3"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// ServerTLS configures TLS below MSL at the server: on if there is a certificate.
type ServerTLS struct {
	Certificates CertificateList `yaml:"certificates" example:"\n- {certificate: server.crt, key: tls-p256, ocsp: server.ocsp}"` // chosen by server name; a client that sends no name gets the first
	ClientCA     string          `yaml:"client-ca" example:"clients.pem"`                                                        // clients need a certificate issued by one of these; default: no client certificates
	ClientCRL    string          `yaml:"client-crl" example:"revoked.pem"`                                                       // their revocation lists; the server reads the file again when it changes
	HTTP2        bool            `yaml:"http2"`                                                                                  // offer HTTP/2; each of its streams counts as a connection
	MinVersion   string          `yaml:"min-version" example:"1.2"`                                                              // or 1.3
}

// ClientTLS configures TLS below MSL, for a server whose URL begins with https.
type ClientTLS struct {
	Roots       string `yaml:"roots" example:"roots.pem"`             // root certificates; default: the system's roots
	Certificate string `yaml:"certificate" example:"tls.crt"`         // client certificate, if the server requires one
	Key         string `yaml:"key" example:"tls-p256"`                // label of the certificate's key
	ServerName  string `yaml:"server-name" example:"msl.example.com"` // name expected in the server's certificate; default: the host of the URL
	HTTP2       bool   `yaml:"http2"`                                 // use HTTP/2 if the server has it: one connection for all messages
	MinVersion  string `yaml:"min-version" example:"1.2"`             // or 1.3
}

// A CertificateList is a list of certificates with the labels of their keys.
type CertificateList []Certificate

// A Certificate is a TLS certificate and its key.
type Certificate struct {
	Certificate string `yaml:"certificate"` // file: the certificate, then its chain
	Key         string `yaml:"key"`         // label
	OCSP        string `yaml:"ocsp"`        // file of the OCSP response to staple, read again when it changes
}

// UnmarshalYAML reads a list of {certificate, key, ocsp}.
func (l *CertificateList) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
		return misplaced{n, errCertificates()} // and never no TLS because of it
	}
	for _, item := range n.Content {
		var c Certificate
		if item.Kind != yaml.MappingNode {
			return misplaced{item, errCertificates()}
		}
		fields := map[string]*string{"certificate": &c.Certificate, "key": &c.Key, "ocsp": &c.OCSP}
		for i := 0; i+1 < len(item.Content); i += 2 {
			field := fields[item.Content[i].Value]
			if field == nil {
				return misplaced{item.Content[i], fmt.Errorf("unknown field %q; a certificate has certificate, key, ocsp", item.Content[i].Value)}
			}
			*field = item.Content[i+1].Value
		}
		if c.Certificate == "" || c.Key == "" {
			return misplaced{item, fmt.Errorf("a certificate needs the fields certificate and key")}
		}
		*l = append(*l, c)
	}
	return nil
}

func errCertificates() error {
	return fmt.Errorf("must be a list of certificates, such as [{certificate: FILE, key: LABEL}]")
}

// check requires a certificate if anything else is set.
func (t *ServerTLS) check() error {
	if len(t.Certificates) == 0 && (t.ClientCA != "" || t.ClientCRL != "" || t.MinVersion != "" || t.HTTP2) {
		return exit.Usagef("server.tls has settings, and no certificate: name certificate and key in server.tls.certificates, or leave them out")
	}
	if t.ClientCRL != "" && t.ClientCA == "" {
		return exit.Usagef("server.tls.client-crl is set and server.tls.client-ca is not: no client is asked for a certificate")
	}
	return nil
}

func (t *ServerTLS) settle(dir string) {
	t.ClientCA, t.ClientCRL = within(dir, t.ClientCA), within(dir, t.ClientCRL)
	for i := range t.Certificates {
		c := &t.Certificates[i]
		c.Certificate, c.OCSP = within(dir, c.Certificate), within(dir, c.OCSP)
	}
}

// check requires a certificate and its key, or neither.
func (t *ClientTLS) check(setting string) error {
	if (t.Certificate == "") != (t.Key == "") {
		return exit.Usagef("%s has a certificate or a key: give both, or none", setting)
	}
	return nil
}

func (t *ClientTLS) settle(dir string) {
	t.Roots, t.Certificate = within(dir, t.Roots), within(dir, t.Certificate)
}

// ParseVersion parses a TLS version; "" means 1.2.
func ParseVersion(what, text string) (uint16, error) {
	switch text {
	case "1.2", "":
		return tls.VersionTLS12, nil
	case "1.3":
		return tls.VersionTLS13, nil
	}
	return 0, exit.Usagef("%s: %q is not a supported version of TLS: want 1.2 or 1.3", what, text)
}
