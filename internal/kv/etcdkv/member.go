package etcdkv

// A Member is one of a cluster, as it answered.
type Member struct {
	Endpoint string
	Version  string // of etcd
	Leader   bool
	Size     int64 // of its database, in bytes
	Err      error // why it did not answer, or what is wrong with it
}
