//! The object format: data blocks, an index and a footer, each with a checksum.
