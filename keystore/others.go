package keystore

import "time"

// OthersWait is how long a store may wait for another program that changes the provisioned keys of
// the same device, before it makes or destroys one itself.
const OthersWait = 30 * time.Second
