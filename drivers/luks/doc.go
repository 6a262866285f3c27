// Package luks is the format of encrypted volumes: a header with key slots,
// and behind it the disk, of which each sector is encrypted. The cryptography
// is package crypto's.
//
// # Options
//
//   - file: the child that holds the volume.
//   - header: the child that holds the header, if that is apart from the data.
//   - key-secret: the id of the secret with a passphrase of the volume.
//
// None of them can change on reopen.
//
// # Limits
//
// Requests are multiples of sectors. What a disk encrypted in this way holds
// is not to be told from noise, so zeroes are written as data, and discards do
// nothing. The node takes of its children what its own users take, and reads;
// while key slots change it lets nobody else read consistently.
package luks
