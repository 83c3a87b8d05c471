//! Bytes that end with the crc32c of all before it: what headers and superblocks are.

/// Puts the checksum of all before it in the last four bytes; what it is.
pub(crate) fn seal<const N: usize>(bytes: &mut [u8; N]) -> u32 {
    let Some((covered, end)) = bytes.split_last_chunk_mut::<4>() else {
        return 0;
    };
    let crc = crc32c::crc32c(covered);
    *end = crc.to_be_bytes();
    crc
}

/// The checksum at the end, if it is that of all before it; else what it should be, and what stands there.
pub(crate) fn check<const N: usize>(bytes: &[u8; N]) -> Result<u32, (u32, u32)> {
    let Some((covered, end)) = bytes.split_last_chunk::<4>() else {
        return Err((0, 0));
    };
    let (found, expected) = (crc32c::crc32c(covered), u32::from_be_bytes(*end));
    if found == expected {
        Ok(expected)
    } else {
        Err((found, expected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_sealed_bytes_is_noticed() {
        let mut bytes = [7; 20];
        let crc = seal(&mut bytes);
        assert_eq!(check(&bytes), Ok(crc));
        for bit in 0..160 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&bad).is_err(), "bit {bit}");
        }
    }
}
