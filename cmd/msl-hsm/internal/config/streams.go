package config

// Stream is where connections that last are taken, for many messages and for channels.
type Stream struct {
	Path   string `yaml:"path"`                            // of the URL of its WebSockets, at server.listen; "none": no WebSockets
	Listen string `yaml:"listen" example:"127.0.0.1:8081"` // address for TCP, with TLS if server.tls has certificates; default: none
}

// Peer is where peers connect that issue tokens for this server, as it does for them.
type Peer struct {
	Path         string       `yaml:"path" example:"/peer"`                         // of the URL of its WebSockets; default: none
	Listen       string       `yaml:"listen" example:"127.0.0.1:8082"`              // address for TCP, as of stream; default: none
	KeyExchanges exchangeList `yaml:"key-exchanges" example:"[ASYMMETRIC_WRAPPED]"` // offered to peers, best first; default: SYMMETRIC_WRAPPED with psk-keys, else ASYMMETRIC_WRAPPED
	Push         bool         `yaml:"push"`                                         // peers whose message was answered get what is posted at server.push.from
}

// Push is where clients wait for messages that the server sends by itself.
type Push struct {
	Path   string `yaml:"path" example:"/push"`                       // of the URL of its WebSockets; default: none
	Listen string `yaml:"listen" example:"127.0.0.1:8083"`            // address for TCP, as of stream; default: none
	From   string `yaml:"from" example:"unix:/run/msl-hsm-push.sock"` // where programs of this machine post them: a socket, or a loopback address
}
