package config

import (
	"log/slog"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A Config is the configuration file, with defaults filled in. Paths in it are
// relative to the file.
type Config struct {
	Keystore Keystore `yaml:"keystore"`
	Server   Server   `yaml:"server"`
	Client   Client   `yaml:"client"`
}

// Keystore says where the keys are.
type Keystore struct {
	URI            string        `yaml:"uri" example:"pkcs11:token=prod?module-path=/usr/lib/vendor.so"` // or soft:FILE, or tpm:?state=FILE
	Tokens         []string      `yaml:"tokens" example:"[hsm-a, hsm-b]"`                                // PKCS #11 tokens that hold the same keys, such as clones, instead of a token in uri: labels, or URIs; omitted parts are taken from uri
	SoftHSM        string        `yaml:"softhsm" example:"dev"`                                          // directory of a SoftHSM token; its module is found automatically
	Initialize     string        `yaml:"initialize" example:"configdir='sql:/etc/nss' flags="`           // text for C_Initialize of the PKCS #11 module, which NSS requires; default: none
	PIN            string        `yaml:"pin" example:"credential:pin"`                                   // source of the PIN, or of the passphrase of a soft: file
	Argon2         Argon2        `yaml:"argon2"`                                                         // Argon2id cost of that passphrase; an old file gets it when key create or key import changes it
	Owner          string        `yaml:"owner-password" example:"credential:owner"`                      // source of the password of the TPM's owner hierarchy, if it has one: for tpm init, for anti-rollback, and if another program removed the storage key
	Endorsement    string        `yaml:"endorsement-password" example:"credential:endorsement"`          // the same for the endorsement hierarchy: for tpm init, enroll and renew
	Lockout        string        `yaml:"lockout-password" example:"credential:lockout"`                  // the same for the lockout hierarchy: for tpm unlock
	EKService      EKService     `yaml:"ek-service" example:"intel"`                                     // service that tpm init asks for the certificate of the TPM's endorsement key, if the TPM has none: intel, amd, or either with another URL, such as intel:https://HOST/PATH; default: none
	Sessions       SessionBound  `yaml:"sessions" example:"32"`                                          // PKCS #11 sessions used at the same time, at most; default: auto, as many as the load needs and the token allows
	Wait           time.Duration `yaml:"wait" example:"5s"`                                              // how long to wait for a free session
	CallTimeout    time.Duration `yaml:"call-timeout" example:"10s"`                                     // of one call into the PKCS #11 module; the key store is unavailable while a call takes longer
	Isolate        bool          `yaml:"isolate"`                                                        // run the PKCS #11 module in a separate process, so that its crash or hang does not affect this one
	IsolateMemory  int64         `yaml:"isolate-memory" example:"1073741824"`                            // bytes that this process may occupy before it is replaced; negative means no bound
	IsolateSandbox bool          `yaml:"isolate-sandbox"`                                                // keep that process from running programs, inspecting other processes and accepting connections, if the kernel supports it
	Prefix         string        `yaml:"prefix"`                                                         // first part of the labels of the keys
	Random         string        `yaml:"random" example:"mixed"`                                         // os, the default, or mixed: bytes of the operating system combined with those of the HSM or TPM
	SessionKeys    string        `yaml:"session-keys" example:"memory"`                                  // token, the default: they are in the PKCS #11 token; or memory: in locked memory of this process, for a token that cannot make them, with custody imported or shared
	TrustedWrap    bool          `yaml:"trusted-wrapping"`                                               // make sealing keys whose blobs key rewrap can move to newer sealing keys that the security officer marked as trusted (PKCS #11)
	AllowWeak      []string      `yaml:"allow-weak"`                                                     // weaknesses of keys and module to accept; key show names them

	Log           *slog.Logger        // of a process that lives long: told when the device is lost
	CheapForTests bool                // permits a cost, of passwords too, at which they are guessed easily
	Calls         func(keystore.Call) // told of each operation of a PKCS #11 token, or nil
}

// Server is what a server is made of.
type Server struct {
	Listen      string `yaml:"listen"`
	Identity    string `yaml:"identity"`                         // its name for devices
	Key         string `yaml:"key" example:"msl-identity"`       // label of the RSA or EC key that proves it
	KeyID       string `yaml:"key-id" example:"key-1"`           // its name on the wire; default: derived from the public key
	Certificate string `yaml:"certificate" example:"server.crt"` // for that key; its subject becomes the identity
	PSKKeys     string `yaml:"psk-keys" example:"server-psk"`    // or, in place of key: labels of pre-shared keys
	State       State  `yaml:"state"`                            // entities, users, revocations, replay protection; state: FILE is short for a section with only a file

	TrustedProxies networkList `yaml:"trusted-proxies" example:"[10.0.0.0/8]"` // proxies whose X-Forwarded-For or Forwarded header is believed; each must set it itself; default: none
	ProxyProtocol  bool        `yaml:"proxy-protocol"`                         // their connections begin with the PROXY protocol, version 1 or 2

	Argon2 Argon2 `yaml:"argon2"` // Argon2id cost of user passwords; an old password gets it at the next login

	EntitySchemes entityList   `yaml:"entity-schemes" example:"[PSK, RSA]"` // default: every scheme that the other settings allow
	UserSchemes   userList     `yaml:"user-schemes" example:"[EMAIL_PASSWORD, USER_ID_TOKEN]"`
	UserRules     UserRules    `yaml:"user-rules" example:"\n- {entity: kiosk-, user: '@example.com', schemes: [USER_ID_TOKEN]}\n- {entity: kiosk-, schemes: []}"` // which users may log in where: the first rule with the beginning of the identity and the end of the user name decides; default: all may
	KeyExchanges  exchangeList `yaml:"key-exchanges" example:"[SYMMETRIC_WRAPPED, ASYMMETRIC_WRAPPED]"`                                                            // best first; default: all that custody allows, except JWK_RSAES
	DHGroups      GroupList    `yaml:"dh-groups" example:"[ffdhe2048, modp2048]"`                                                                                  // for DIFFIE_HELLMAN; default: all

	X509Roots         string            `yaml:"x509-roots" example:"roots.pem"`             // certificates trusted to vouch for entities; default: none
	X509Intermediates string            `yaml:"x509-intermediates" example:"between.pem"`   // between the roots and the entities
	X509CRL           string            `yaml:"x509-crl" example:"revoked.pem"`             // revocation lists; a changed file is read while the server runs
	X509RequireCRL    bool              `yaml:"x509-require-crl"`                           // refuse certificates whose issuer has no list
	ModelGroups       map[string]string `yaml:"model-groups" example:"\nCAM7-: group-cam7"` // MGK: prefix of the identities, and label of the group key
	Provisioned       string            `yaml:"provisioned" example:"guest-"`               // PROVISIONED: prefix of the identities given out; default: none are given out
	Enrollment        Enrollment        `yaml:"enrollment"`                                 // of devices with a TPM; default: none

	Require struct {
		Encrypted     bool `yaml:"encrypted"` // unencrypted messages are answered with a key exchange
		Authenticated bool `yaml:"authenticated"`
		NonReplayable bool `yaml:"non-replayable"`
	} `yaml:"require"`

	Compression  []string      `yaml:"compression"`
	Languages    []string      `yaml:"languages" example:"[en]"`         // that answers name; default: those of messages, or en
	Messages     string        `yaml:"messages" example:"messages.yaml"` // texts for users, sent with errors, by language and error; default: none
	Custody      string        `yaml:"custody"`                          // session keys stay in the token; or imported, or shared
	RenewAfter   time.Duration `yaml:"renew-after" example:"1h"`         // of master tokens
	Lifetime     time.Duration `yaml:"lifetime" example:"24h"`
	RenewExpired time.Duration `yaml:"renew-expired" example:"720h"` // how long an expired master token can still be renewed; after that the device starts a new session; default: user-lifetime

	UserRenewAfter   time.Duration `yaml:"user-renew-after" example:"1h"`    // of user ID tokens, the logins that devices keep
	UserLifetime     time.Duration `yaml:"user-lifetime" example:"720h"`     // a device that is in use renews them, however long
	UserRenewExpired time.Duration `yaml:"user-renew-expired" example:"24h"` // how long an expired one can still be renewed; after that the user logs in again; default: as long as the device's session

	Limits Limits    `yaml:"limits"` // 0 is the default
	TLS    ServerTLS `yaml:"tls"`    // below MSL; default: none

	Stream Stream `yaml:"stream"` // connections that last, for many messages and for channels
	Peer   Peer   `yaml:"peer"`   // the same, with peers that issue tokens for this server, too
	Push   Push   `yaml:"push"`   // the same, for clients that wait for messages of the server

	Failures Failures `yaml:"failures"` // reports from devices whose cryptography fails

	Admin     Admin  `yaml:"admin"`                                              // what an operator looks at; default: only the socket beside the state file
	AccessLog string `yaml:"access-log" example:"/var/log/msl-hsm/access.jsonl"` // a line of JSON for each message: a file, log for the log itself, or none, the default

	Watch Watch `yaml:"watch" example:"5s"` // how often to check the files that a reload reads, including this one, for changes; a stable change is applied, as by msl-hsm admin reload; or off

	Audit Audit `yaml:"audit"` // a log of who did what, in which a change is noticed; default: none

	HTTP HTTP `yaml:"http"` // HTTP requests from programs behind an agent; default: none

	Upstream        Upstream      `yaml:"upstream"`                       // the HTTP service behind this gateway; upstream: URL is short for a section with that alone
	UpstreamMethod  string        `yaml:"upstream-method"`                // older name of upstream.method
	UpstreamTimeout time.Duration `yaml:"upstream-timeout" example:"30s"` // older name of upstream.timeout
	Shutdown        time.Duration `yaml:"shutdown"`                       // time for messages in flight
	Drain           time.Duration `yaml:"drain" example:"0s"`             // before that: how long it still takes messages after a signal, and says that it is not ready, for balancers to notice
}

// Client is what a client is made of, and the agent.
type Client struct {
	URL          string `yaml:"url" example:"http://127.0.0.1:8080/"` // or with https, ws, wss, tcp or tls
	Peer         bool   `yaml:"peer"`                                 // the server is a peer: tokens are issued for it, too
	EntityScheme string `yaml:"entity-scheme" example:"PSK"`          // default: inferred from the other settings
	Identity     string `yaml:"identity" example:"camera-1"`          // default: that of the PSK file or the certificate
	Suffix       string `yaml:"suffix" example:"app-1"`               // NONE_SUFFIXED: the part after the identity
	PSK          string `yaml:"psk" example:"camera-1.psk"`           // pre-shared keys; or else
	PSKKeys      string `yaml:"psk-keys" example:"camera-psk"`        // labels of pre-shared keys in the key store; or else
	Profile      string `yaml:"profile" example:"night"`              // PSK_PROFILE: name of the profile
	Key          string `yaml:"key" example:"msl-identity"`           // label of the client's RSA or EC key
	KeyID        string `yaml:"key-id" example:"key-1"`               // default: derived from the public key
	Certificate  string `yaml:"certificate" example:"camera.crt"`     // for that key; its subject is the identity
	EarlierState string `yaml:"earlier-state" example:"old.db"`       // state of an earlier session, for MT_PROTECTED and USER_ID_TOKEN

	Recipient           string `yaml:"recipient"`                        // identity of the server
	ServerKey           string `yaml:"server-key" example:"server.pem"`  // the server's public key; or else
	ServerKeyID         string `yaml:"server-key-id" example:"key-1"`    // default: derived from the public key
	ServerRoots         string `yaml:"server-roots" example:"roots.pem"` // certificates trusted to vouch for it; or else
	ServerIntermediates string `yaml:"server-intermediates" example:"between.pem"`
	ServerPSK           string `yaml:"server-psk" example:"server.psk"` // the server's pre-shared keys

	KeyExchanges exchangeList `yaml:"key-exchanges" example:"[SYMMETRIC_WRAPPED]"` // offered, best first; default: this one with pre-shared keys, else ASYMMETRIC_WRAPPED
	DHGroup      string       `yaml:"dh-group" example:"ffdhe2048"`                // for DIFFIE_HELLMAN
	Custody      string       `yaml:"custody" example:"sealed"`                    // session keys stay in the key store; or imported, or shared; default: sealed, and imported with a TPM that has no AES

	State        string   `yaml:"state" example:"client.db"`     // tokens; default: none, every call starts a new session
	AntiRollback string   `yaml:"anti-rollback" example:"false"` // true, or an NV index: bind the state to a counter in the TPM
	User         string   `yaml:"user" example:"ada@example.com"`
	UserScheme   string   `yaml:"user-scheme"`               // or USER_ID_TOKEN
	Password     string   `yaml:"password" example:"prompt"` // source of the password
	Compression  []string `yaml:"compression"`
	Languages    []string `yaml:"languages" example:"[de, en]"` // for texts to the user in errors, best first; default: the server chooses

	Limits ClientLimits `yaml:"limits"` // of answers; 0 is the default
	Agent  Agent        `yaml:"agent"`
	Attest Attest       `yaml:"attest"` // for the agent of a machine that enrolled with its TPM: regularly attests to the server the state in which the machine was started

	TLS ClientTLS `yaml:"tls"` // for https URLs

	Failures FailureReports `yaml:"failures"` // reports that this client makes
}

// SessionsInMemory is the value of keystore.session-keys for session keys that are not in
// the token.
const SessionsInMemory = "memory"

// RandomMixed is the value of keystore.random for bytes of two sources.
const RandomMixed = "mixed"

// Default returns a configuration without a file.
func Default() *Config {
	c := &Config{}
	c.Keystore.Prefix = "msl"
	c.Keystore.IsolateSandbox = true
	c.Server.Listen = "127.0.0.1:8080"
	c.Server.Identity = "server"
	c.Server.Custody = "sealed"
	c.Server.Require.Encrypted, c.Server.Require.Authenticated = true, true
	c.Server.Compression = []string{"GZIP", "LZW"}
	c.Server.Shutdown = DefaultShutdown
	c.Server.Watch = DefaultWatch
	c.Server.Stream.Path = "/"
	c.Server.Failures = noFailures()
	c.Server.Enrollment = noEnrollment()
	c.Client.Recipient = "server"
	c.Client.UserScheme = "EMAIL_PASSWORD"
	c.Client.Compression = []string{"GZIP", "LZW"}
	c.Client.Attest.PCR = DefaultPCRs()
	c.Client.Agent = Agent{Body: 24 << 20, Requests: 128, Timeout: time.Minute, Shutdown: DefaultShutdown, Watch: DefaultWatch}
	return c
}

// None reports whether no key store is configured.
func (k *Keystore) None() bool { return k.URI == "" && k.SoftHSM == "" && len(k.Tokens) == 0 }

// UseOnly names the one key store to use, if it is given.
func (k *Keystore) UseOnly(uri string) {
	if uri != "" {
		k.URI, k.Tokens = uri, nil
	}
}

// Override replaces a value by that of a flag, if it was given.
func Override(value *string, flag string) {
	if flag != "" {
		*value = flag
	}
}

// DefaultShutdown is the time that a server or an agent has to shut down.
const DefaultShutdown = 10 * time.Second

// DefaultWatch is how often files are checked for changes.
const DefaultWatch = Watch(5 * time.Second)
