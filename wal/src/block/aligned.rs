//! Memory that a device takes without a copy: block-aligned buffers, made without unsafe code by starting at the first aligned address.
//!
//! - The address of what is returned is a multiple of [`BLOCK`]; cutting at multiples of it keeps that true of every piece.

use bytes::{Buf, BytesMut};

use super::ring::BLOCK;

/// An empty buffer with room for `len` bytes from an aligned address.
pub(crate) fn with_capacity(len: usize) -> BytesMut {
    let block = BLOCK as usize;
    // One byte less than a block more: wherever the allocator puts it, as many whole blocks fit, so that how frames are
    // cut does not depend on an address.
    let mut buffer = BytesMut::with_capacity(len + block - 1);
    let skip = buffer.as_ptr().addr().wrapping_neg() % block;
    buffer.resize(skip, 0);
    buffer.advance(skip);
    buffer
}

/// `len` zero bytes from an aligned address.
pub(crate) fn zeroed(len: usize) -> BytesMut {
    let mut buffer = with_capacity(len);
    buffer.resize(len, 0);
    buffer
}

/// Whether a device with aligned memory takes it.
pub(crate) fn is_aligned(data: &[u8]) -> bool {
    data.as_ptr().addr().is_multiple_of(BLOCK as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_start_aligned_and_stay_so_when_cut_at_blocks() {
        for len in [1, 4096, 4097, 1 << 20] {
            let mut buffer = with_capacity(len);
            assert!(buffer.capacity() >= len);
            assert!(buffer.capacity() < len + BLOCK as usize);
            buffer.resize(len, 7);
            assert!(is_aligned(&buffer), "{len}");
            if len > 4096 {
                let head = buffer.split_to(4096).freeze();
                assert!(is_aligned(&head) && is_aligned(&buffer));
            }
        }
    }
}
