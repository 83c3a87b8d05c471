//! The codecs of record batches, as readers that never hold more than they must.
//!
//! Memory of a decoder: gzip 64 KiB; snappy the larger of a block and, for the unframed form, 22 times the compressed
//! bytes; lz4 two blocks (at most 4 MiB each); zstd the window of the frame (at most 128 MiB, of which only what was
//! decompressed is touched). How much may be decompressed is the caller's limit. It does not choose codecs or levels.

use std::fmt;
use std::io::{self, Cursor, Read, Write};

use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use crate::error::LogError;

/// The codec of a batch; the numbers are the protocol's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Codec {
    /// Not compressed.
    None = 0,
    /// RFC 1952.
    Gzip = 1,
    /// Snappy blocks, in the framing of the Java client or bare as librdkafka sends it.
    Snappy = 2,
    /// The lz4 frame format.
    Lz4 = 3,
    /// Zstandard.
    Zstd = 4,
}

/// The first bytes of the framing that the Java client puts around snappy blocks.
const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
/// Magic, then version and least compatible version as 32-bit numbers.
const XERIAL_HEADER_LEN: usize = 16;
/// Uncompressed bytes per block when writing that framing: what the Java client uses.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
/// No snappy element yields more than 64 bytes for 3, so a block that claims more than this many times its length lies.
const SNAPPY_RATIO_MAX: u64 = 22;
/// The first bytes of an lz4 frame.
const LZ4_MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();
/// log2 of the largest zstd window: what levels up to 22 use.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Why bytes cannot be decompressed.
#[derive(Clone, Debug)]
pub(crate) enum DecodeFault {
    /// More than the limit comes out.
    TooLarge { len: u64 },
    /// The codec does not accept the bytes.
    Damaged(String),
}

impl Codec {
    /// All codecs, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    pub(crate) fn from_bits(bits: u8) -> Result<Self, LogError> {
        Self::ALL
            .get(usize::from(bits))
            .copied()
            .ok_or(LogError::UnsupportedCompression(bits))
    }

    /// A reader of what `bytes` decompress to. `max` bounds what is allocated at once, not what is read.
    pub(crate) fn decoder<'a>(
        self,
        bytes: &'a [u8],
        max: u64,
    ) -> Result<Box<dyn Read + 'a>, DecodeFault> {
        Ok(match self {
            Self::None => Box::new(bytes),
            Self::Gzip => Box::new(MultiGzDecoder::new(bytes)),
            Self::Snappy if bytes.starts_with(XERIAL_MAGIC) => Box::new(XerialReader::new(bytes)?),
            Self::Snappy => {
                let mut out = Vec::new();
                snappy_block(bytes, max, &mut out)?;
                Box::new(Cursor::new(out))
            }
            Self::Lz4 if bytes.starts_with(&LZ4_MAGIC) => {
                Box::new(lz4_flex::frame::FrameDecoder::new(bytes))
            }
            Self::Lz4 => return Err(DecodeFault::Damaged("not an lz4 frame".into())),
            Self::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(bytes)
                    .and_then(|mut decoder| {
                        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                        Ok(decoder)
                    })
                    .map_err(|error| DecodeFault::Damaged(error.to_string()))?;
                Box::new(decoder)
            }
        })
    }

    /// Compresses `bytes` at the codec's usual level, in the framing of the Java client.
    pub fn compress(self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::None => Ok(bytes.to_vec()),
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(bytes)?;
                encoder.finish()
            }
            Self::Snappy => xerial(bytes),
            Self::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(bytes)?;
                encoder.finish().map_err(io::Error::other)
            }
            Self::Zstd => zstd::stream::encode_all(bytes, zstd::DEFAULT_COMPRESSION_LEVEL),
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

fn xerial(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(XERIAL_HEADER_LEN + bytes.len() / 2);
    out.extend_from_slice(XERIAL_MAGIC);
    out.extend_from_slice(&1u32.to_be_bytes());
    out.extend_from_slice(&1u32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in bytes.chunks(XERIAL_BLOCK_BYTES) {
        let block = encoder.compress_vec(block).map_err(io::Error::other)?;
        out.extend_from_slice(&(block.len() as u32).to_be_bytes());
        out.extend_from_slice(&block);
    }
    Ok(out)
}

/// Decompresses one block into `out`, replacing what it held.
fn snappy_block(block: &[u8], max: u64, out: &mut Vec<u8>) -> Result<(), DecodeFault> {
    let damaged = |error: snap::Error| DecodeFault::Damaged(error.to_string());
    let len = snap::raw::decompress_len(block).map_err(damaged)?;
    if len as u64 > (block.len() as u64).saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(DecodeFault::Damaged(format!(
            "{} bytes claim to hold {len}",
            block.len()
        )));
    }
    if len as u64 > max {
        return Err(DecodeFault::TooLarge { len: len as u64 });
    }
    out.clear();
    out.resize(len, 0);
    let written = snap::raw::Decoder::new()
        .decompress(block, out)
        .map_err(damaged)?;
    out.truncate(written);
    Ok(())
}

/// Reads snappy blocks, each with its length before it.
struct XerialReader<'a> {
    rest: &'a [u8],
    block: Vec<u8>,
    at: usize,
}

impl<'a> XerialReader<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, DecodeFault> {
        // The versions say 1; readers of the Java client accept any, since there has been one format only.
        match bytes.get(XERIAL_HEADER_LEN..) {
            Some(rest) => Ok(Self {
                rest,
                block: Vec::new(),
                at: 0,
            }),
            None => Err(DecodeFault::Damaged("snappy framing is cut off".into())),
        }
    }

    /// Decompresses the next block that is not empty; false at the end.
    fn next_block(&mut self) -> Result<bool, String> {
        while !self.rest.is_empty() {
            let (len, rest) = self
                .rest
                .split_first_chunk::<4>()
                .ok_or("snappy block length is cut off")?;
            let len = u32::from_be_bytes(*len) as usize;
            let block = rest.get(..len).ok_or("snappy block is cut off")?;
            self.rest = &rest[len..];
            self.at = 0;
            // The ratio check bounds a block by 22 times the input; the walk bounds the sum.
            snappy_block(block, u64::MAX, &mut self.block).map_err(|fault| match fault {
                DecodeFault::Damaged(reason) => reason,
                DecodeFault::TooLarge { len } => format!("block of {len} bytes"),
            })?;
            if !self.block.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Read for XerialReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.block.len() {
            let more = self
                .next_block()
                .map_err(|reason| io::Error::new(io::ErrorKind::InvalidData, reason))?;
            if !more {
                return Ok(0);
            }
        }
        let held = &self.block[self.at..];
        let len = held.len().min(out.len());
        out[..len].copy_from_slice(&held[..len]);
        self.at += len;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decompress(codec: Codec, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        codec
            .decoder(bytes, 1 << 20)
            .unwrap()
            .read_to_end(&mut out)
            .unwrap();
        out
    }

    #[test]
    fn every_codec_gives_back_what_it_was_given() {
        let plain: Vec<u8> = (0..100_000u32)
            .flat_map(|n| (n / 7).to_be_bytes())
            .collect();
        for codec in Codec::ALL {
            for len in [0, 1, 40_000, plain.len()] {
                let packed = codec.compress(&plain[..len]).unwrap();
                assert_eq!(decompress(codec, &packed), &plain[..len], "{codec} {len}");
            }
        }
    }

    #[test]
    fn snappy_is_read_bare_and_in_the_framing_of_the_java_client() {
        let plain = b"snappy snappy snappy snappy".repeat(10);
        let bare = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
        assert_eq!(decompress(Codec::Snappy, &bare), plain);
        let framed = Codec::Snappy.compress(&plain).unwrap();
        assert_eq!(&framed[..16], b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
        assert_eq!(decompress(Codec::Snappy, &framed), plain);
    }

    #[test]
    fn a_snappy_length_that_cannot_be_is_refused_before_it_is_allocated() {
        // A varint that claims 4 GiB - 1 for a block of a few bytes.
        let lie = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0];
        let fault = Codec::Snappy.decoder(&lie, u64::MAX).err();
        assert!(matches!(fault, Some(DecodeFault::Damaged(_))), "{fault:?}");
    }

    #[test]
    fn a_cut_off_stream_of_any_codec_is_an_error_or_shorter() {
        let plain = b"some bytes that do not compress to nothing 0123456789".repeat(20);
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let packed = codec.compress(&plain).unwrap();
            for len in 0..packed.len() {
                let mut out = Vec::new();
                if let Ok(mut decoder) = codec.decoder(&packed[..len], 1 << 20)
                    && decoder.read_to_end(&mut out).is_ok()
                {
                    assert!(plain.starts_with(&out), "{codec} {len}");
                }
            }
        }
    }
}
