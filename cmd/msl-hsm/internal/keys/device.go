package keys

// DeviceStats are numbers about a PKCS #11 token at one moment.
type DeviceStats struct {
	Open, InUse int    // sessions
	Objects     int    // that live in them
	Epoch       uint64 // how often the sessions were opened anew
}
