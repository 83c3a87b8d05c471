//! Bytes of entries and snapshots, held for ever. A change here is a change of the format.

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn an_entry() {
    assert_eq!(hex(b""), "");
}
