package tlsalert

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// An Alert is the number of a TLS alert, the second byte of its record (RFC 8446
// section 6, RFC 5246 section 7.2).
type Alert uint8

// The alerts of TLS. NoCertificate exists only in SSL 3.0.
const (
	CloseNotify            Alert = 0
	UnexpectedMessage      Alert = 10
	BadRecordMAC           Alert = 20
	DecryptionFailed       Alert = 21
	RecordOverflow         Alert = 22
	DecompressionFailure   Alert = 30
	HandshakeFailure       Alert = 40
	NoCertificate          Alert = 41
	BadCertificate         Alert = 42
	UnsupportedCertificate Alert = 43
	CertificateRevoked     Alert = 44
	CertificateExpired     Alert = 45
	CertificateUnknown     Alert = 46
	IllegalParameter       Alert = 47
	UnknownCA              Alert = 48
	AccessDenied           Alert = 49
	DecodeError            Alert = 50
	DecryptError           Alert = 51
	TooManyCIDsRequested   Alert = 52
	ExportRestriction      Alert = 60
	ProtocolVersion        Alert = 70
	InsufficientSecurity   Alert = 71
	InternalError          Alert = 80
	InappropriateFallback  Alert = 86
	UserCanceled           Alert = 90
	NoRenegotiation        Alert = 100
	MissingExtension       Alert = 109
	UnknownPSKIdentity     Alert = 115
	CertificateRequired    Alert = 116
	GeneralError           Alert = 117
	NoApplicationProtocol  Alert = 120
	ECHRequired            Alert = 121
)

// The extension alerts: a side may send them only to a peer whose hello had extensions.
const (
	UnsupportedExtension         Alert = 110
	CertificateUnobtainable      Alert = 111
	UnrecognizedName             Alert = 112
	BadCertificateStatusResponse Alert = 113
	BadCertificateHashValue      Alert = 114
)

// A Level is the level that the specifications give an alert.
type Level string

// The levels. For the last four the sender chooses, and [Alert.Fatal] decides how a
// received alert is treated.
const (
	LevelClosure     Level = "closure"         // ends the connection in good order
	LevelFatal       Level = "fatal"           // always
	LevelWarning     Level = "warning"         // always
	LevelUsually     Level = "usually warning" // the sender may make it fatal
	LevelMayBeFatal  Level = "may be fatal"    // the sender decides whether it continues
	LevelEither      Level = "either"          // the sender decides
	LevelUnspecified Level = "unspecified"     // not specified up to TLS 1.1; fatal since then
)

// A Side is an end of a connection.
type Side uint8

// The sides. Both is for an alert that either side may send.
const (
	Client Side = 1 << iota
	Server
	Both = Client | Server
)

// String returns client, server or both.
func (s Side) String() string {
	switch s {
	case Client:
		return "client"
	case Server:
		return "server"
	case Both:
		return "both"
	}
	return "nobody"
}

// MarshalText writes what String returns.
func (s Side) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Info describes an alert.
type Info struct {
	Number     uint8  `json:"number"`
	Name       string `json:"name"` // in the specification
	Level      Level  `json:"level"`
	Sender     Side   `json:"sender"`    // who may send it
	Extension  bool   `json:"extension"` // only to a side whose hello had extensions
	Reserved   bool   `json:"reserved"`  // must no longer be sent
	RFC        string `json:"rfc"`       // where it is defined
	Meaning    string `json:"meaning"`
	IfSent     string `json:"if_sent"`     // what to do next if this side sent it
	IfReceived string `json:"if_received"` // what to do next if the peer sent it
}

// Info describes a. An alert that no specification defines has its number, no name
// and [LevelUnspecified].
func (a Alert) Info() Info {
	if info, ok := table[a]; ok {
		info.Number = uint8(a)
		return info
	}
	return Info{
		Number: uint8(a), Level: LevelUnspecified, Sender: Both,
		Meaning:    "no specification known here defines this number",
		IfSent:     "report it: this program sends no such alert",
		IfReceived: "find out which TLS stack the peer runs, and ask its maker",
	}
}

// String returns the name in the specification, such as bad_certificate.
func (a Alert) String() string {
	if info, ok := table[a]; ok {
		return info.Name
	}
	return fmt.Sprintf("alert(%d)", uint8(a))
}

// MarshalText writes what String returns.
func (a Alert) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// All lists the alerts that have a name, by number.
func All() []Alert { return slices.Sorted(maps.Keys(table)) }

// Parse reads a name, in upper or lower case and with spaces or hyphens instead of
// underscores, or a number from 0 to 255.
func Parse(text string) (Alert, error) {
	if n, err := strconv.ParseUint(text, 10, 8); err == nil {
		return Alert(n), nil
	}
	name := strings.NewReplacer(" ", "_", "-", "_").Replace(strings.ToLower(text))
	for a, info := range table {
		if info.Name == name {
			return a, nil
		}
	}
	return 0, fmt.Errorf("tlsalert: %q is neither the name of a TLS alert nor a number from 0 to 255", text)
}
