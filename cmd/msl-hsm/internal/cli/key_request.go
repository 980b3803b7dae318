package cli

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"time"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
)

func keyRequestCommand(p *program) *cobra.Command {
	var names []string
	var selfSigned int
	c := &cobra.Command{
		Use:   "request NAME",
		Short: "Print a certificate request for a signing key",
		Long: `Prints a certificate signing request (PKCS #10, RFC 2986) in PEM, signed by the key
inside the key store, for a certificate authority. With the certificate, the key can be
used for TLS: an ecdsa-p256 key for TLS 1.2 and 1.3, an RSA key for TLS 1.2 only.

With --self-signed DAYS it prints a certificate signed by the key itself, for
networks where everybody is given it as a root.`,
		Args: want("NAME"),
		RunE: func(verb *cobra.Command, args []string) error {
			if len(names) == 0 {
				return exit.Usagef("no name for the certificate: give --name HOST, or --name ADDRESS")
			}
			if verb.Flags().Changed("self-signed") && selfSigned < 1 {
				return exit.Usagef("--self-signed %d: want one day or more", selfSigned)
			}
			return withKeys(p, keys.Open, func(_ *config.Config, store keys.Store) error {
				signer, err := signerNamed(store, args[0])
				if err != nil {
					return err
				}
				block, err := certificateRequest(signer, names, selfSigned)
				if err != nil {
					return err
				}
				return pem.Encode(p.stdout, block)
			})
		},
	}
	c.Flags().StringArrayVar(&names, "name", nil, "DNS name or IP `ADDRESS` in the certificate; repeatable")
	c.Flags().IntVar(&selfSigned, "self-signed", 0, "print a certificate for this number of `DAYS` instead")
	return c
}

func signerNamed(store keystore.Store, label string) (crypto.Signer, error) {
	return keys.SigningKey(store, label, keys.MakeKey(label, "ecdsa-p256"))
}

// certificateRequest makes a request for those names or, with days set, a certificate.
func certificateRequest(key crypto.Signer, names []string, days int) (*pem.Block, error) {
	var hosts []string
	var addresses []net.IP
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			addresses = append(addresses, ip)
		} else {
			hosts = append(hosts, name)
		}
	}
	subject := pkix.Name{CommonName: names[0]}
	algorithm := x509.ECDSAWithSHA256
	switch public := key.Public().(type) {
	case *rsa.PublicKey:
		algorithm = x509.SHA256WithRSA
		if k, stored := key.(keystore.Key); stored && k.Algorithm().PSS() {
			algorithm = x509.SHA256WithRSAPSS
		}
	case *ecdsa.PublicKey:
		if public.Curve.Params().BitSize > 256 {
			algorithm = x509.ECDSAWithSHA384
		}
	}
	if days == 0 {
		template := &x509.CertificateRequest{Subject: subject, DNSNames: hosts, IPAddresses: addresses, SignatureAlgorithm: algorithm}
		der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
		return &pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: subject, DNSNames: hosts, IPAddresses: addresses, SignatureAlgorithm: algorithm,
		NotBefore: now.Add(-time.Minute), NotAfter: now.AddDate(0, 0, days), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return &pem.Block{Type: "CERTIFICATE", Bytes: der}, err
}
