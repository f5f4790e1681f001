// Package gunzip decodes gzip streams (RFC 1952), faster than the libraries do.
package gunzip
